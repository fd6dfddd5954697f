"""How librarians keep the catalogue."""

from django.contrib import admin

from catalogue.models import Author, Book, Copy, Publisher, Subject


class CopyInline(admin.TabularInline):
    """Copies, on the page of their book."""

    model = Copy
    extra = 1


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    """Books."""

    list_display = ("title", "publisher", "year")
    list_filter = ("subjects",)
    search_fields = ("title", "authors__name")
    prepopulated_fields = {"slug": ("title",)}
    filter_horizontal = ("authors", "subjects")
    inlines = (CopyInline,)


admin.site.register((Author, Publisher, Subject))
