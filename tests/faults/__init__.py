"""Faults injected into whole chains; `python -m tests.faults` injects all of them.

The tool is the real one, in a process of its own; its stages are shell scripts that take a millisecond. A fault hits
the tool at one of its effects on the disk, hits a stage, or hits the files of a run at rest. After each one: the exit
code is the right one, the message is short, nothing runs on, the next call completes with results equal to those of a
chain that nothing happened to, finished stages are not repeated, and no temporary file is left.
"""
