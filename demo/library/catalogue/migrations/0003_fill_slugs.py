"""Every book that is there gets the address that its title makes; one that is taken gets a number."""

from django.db import migrations
from django.utils.text import slugify


def fill(apps, _schema_editor):
    books = apps.get_model("catalogue", "Book").objects
    taken = set()
    for book in books.order_by("pk").iterator():
        slug = slugify(book.title)[:110] or "book"
        book.slug = slug if slug not in taken else f"{slug}-{book.pk}"
        taken.add(book.slug)
        book.save(update_fields=["slug"])


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0002_book_slug")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
