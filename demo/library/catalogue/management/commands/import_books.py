"""`manage.py import_books FILE.csv`: takes books in from a table with title, authors, publisher, year, subjects, shelves."""

import csv
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils.text import slugify

from catalogue.models import Author, Book, Publisher, Subject


class Command(BaseCommand):
    """Several names in one cell have a semicolon between them. A book that is there already is left alone."""

    help = "Takes books in from a CSV file."

    def add_arguments(self, parser):
        parser.add_argument("file", type=Path)

    @transaction.atomic
    def handle(self, *args, **options):
        try:
            text = options["file"].read_text()
        except OSError as error:
            raise CommandError(f"{options['file']} cannot be read: {error.strerror}") from None
        added = sum(self._add(row) for row in csv.DictReader(text.splitlines()))
        self.stdout.write(f"{added} books are new, {Book.objects.count()} in all")

    def _add(self, row):
        slug = slugify(row["title"])[:120]
        if Book.objects.filter(slug=slug).exists():
            return False
        publisher, _ = Publisher.objects.get_or_create(name=row["publisher"])
        book = Book.objects.create(title=row["title"], slug=slug, publisher=publisher, year=int(row["year"]))
        book.authors.set([Author.objects.get_or_create(name=name)[0] for name in row["authors"].split(";")])
        book.subjects.set([Subject.objects.get_or_create(name=name)[0] for name in row["subjects"].split(";")])
        for shelf in row["shelves"].split(";"):
            book.copies.create(shelf=shelf)
        return True
