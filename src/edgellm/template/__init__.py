"""
Chat templates: Jinja text from a model file, rendered under limits that hold against a hostile file.

- `budget`: what one rendering may use, and the price of a value.
- `methods`, `filters`: the operations a template may call, each priced before it runs.
- `sandbox`: jinja2's immutable sandbox with the above built in; `Template` is the way in.
- `fallback`: our own templates for files that bring none.

jinja2 is imported by `filters` and `sandbox` alone, so that importing edgellm does not pay for it.
"""
