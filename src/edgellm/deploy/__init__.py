"""
Putting edgellm on a device: into its root file system from another machine (`flash`), or as a service of this one.

`machine` looks at the target, `packages` brings wheels, `units` writes texts, `changes` takes back what was half done.
"""
