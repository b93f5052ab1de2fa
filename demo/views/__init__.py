"""What the page shows, as HTML; nothing a model or a visitor wrote gets into it unescaped (`markup.py`)."""
