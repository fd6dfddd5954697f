"""Where each page is."""

from django.contrib import admin
from django.urls import path

from catalogue import views as catalogue
from loans import views as loans

urlpatterns = [
    path("", catalogue.BookList.as_view(), name="books"),
    path("books/<slug:slug>/", catalogue.BookDetail.as_view(), name="book"),
    path("authors/<int:pk>/", catalogue.AuthorDetail.as_view(), name="author"),
    path("figures/", loans.Figures.as_view(), name="figures"),
    path("healthz", catalogue.health, name="health"),
    path("admin/", admin.site.urls),
]
