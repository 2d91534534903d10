"""An OpenAI-compatible server over any engine: what a request may say, what it is answered, and who may ask.

request.py  the body of a request, checked before an engine sees it
engine.py   what an engine has to do: make a prompt of a conversation, and answer it token by token
answer.py   pieces of text → content, thoughts, calls and the reason why it ended
calls.py    the calls in it
app.py      the routes, one answer at a time, whole or as a stream
"""
