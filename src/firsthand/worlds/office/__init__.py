"""An office: mail, a calendar and files, with places where an attack can write."""
