"""How librarians keep the members."""

from django.contrib import admin

from members.models import Member, Membership


class MembershipInline(admin.TabularInline):
    """The years of a member, on its page."""

    model = Membership
    extra = 0


@admin.register(Member)
class MemberAdmin(admin.ModelAdmin):
    """Members."""

    list_display = ("name", "card", "email")
    search_fields = ("name", "card")
    inlines = (MembershipInline,)
