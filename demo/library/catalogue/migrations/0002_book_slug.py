"""Books get an address of their own; it is filled by the next migration."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0001_initial")]

    operations = [
        migrations.AddField("book", "slug", models.SlugField(max_length=120, default="", db_index=False)),
    ]
