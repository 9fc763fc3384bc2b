"""Measurements of the framework against a frozen floor and against PEFT; nothing here is imported by it."""
