"""Pages of the catalogue."""

from django.db import connection
from django.db.models import Count, Q
from django.http import HttpResponse
from django.views.generic import DetailView, ListView

from catalogue.models import Author, Book


class BookList(ListView):
    """All books, or those that a word is found in."""

    paginate_by = 20

    def get_queryset(self):
        books = Book.objects.prefetch_related("authors").annotate(copies_count=Count("copies", distinct=True))
        if word := self.request.GET.get("q", "").strip()[:100]:
            books = books.filter(Q(title__icontains=word) | Q(authors__name__icontains=word)).distinct()
        return books


class BookDetail(DetailView):
    """One book, with its copies."""

    queryset = Book.objects.select_related("publisher").prefetch_related("authors", "subjects", "copies")


class AuthorDetail(DetailView):
    """One author, with the books."""

    queryset = Author.objects.prefetch_related("books")


def health(_request):
    """Says ok when the database answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM catalogue_book")
        cursor.fetchone()
    return HttpResponse("ok", content_type="text/plain")
