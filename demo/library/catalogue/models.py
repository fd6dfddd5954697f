"""What the library has: books, who wrote and printed them, and the copies on its shelves."""

from django.db import models
from django.urls import reverse


class Author(models.Model):
    """Somebody who has written a book."""

    name = models.CharField(max_length=200, unique=True)
    born = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("author", args=[self.pk])


class Publisher(models.Model):
    """A house that prints books."""

    name = models.CharField(max_length=200, unique=True)
    city = models.CharField(max_length=100, blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self):
        return self.name


class Subject(models.Model):
    """What books are about."""

    name = models.CharField(max_length=100, unique=True)

    class Meta:
        ordering = ("name",)

    def __str__(self):
        return self.name


class Book(models.Model):
    """A title; the library may have many copies of it, or none."""

    title = models.CharField(max_length=300)
    slug = models.SlugField(max_length=120, unique=True)
    authors = models.ManyToManyField(Author, related_name="books")
    subjects = models.ManyToManyField(Subject, related_name="books", blank=True)
    publisher = models.ForeignKey(Publisher, on_delete=models.PROTECT, related_name="books", null=True, blank=True)
    year = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        ordering = ("title",)

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("book", args=[self.slug])


class Copy(models.Model):
    """One copy of a book, on a shelf or in somebody's hands."""

    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="copies")
    shelf = models.CharField(max_length=20)
    bought = models.DateField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "copies"
        ordering = ("shelf",)

    def __str__(self):
        return f"{self.book} at {self.shelf}"
