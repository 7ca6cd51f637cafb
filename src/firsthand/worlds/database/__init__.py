"""The database of a task: tables that an agent reads and changes, judged by answer or by table hash."""
