"""How librarians see what is out."""

from django.contrib import admin

from loans.models import DailyFigures, Fine, Loan, Reservation


@admin.register(Loan)
class LoanAdmin(admin.ModelAdmin):
    """Loans."""

    list_display = ("copy", "member", "due", "returned")
    list_filter = ("returned",)
    raw_id_fields = ("copy", "member")


@admin.register(DailyFigures)
class DailyFiguresAdmin(admin.ModelAdmin):
    """Figures, newest first."""

    list_display = ("day", "books", "copies", "out", "overdue", "counted")


admin.site.register((Reservation, Fine))
