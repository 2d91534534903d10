"""An OpenAI-compatible server over any engine: what a request may say, what it is answered, and who may ask.

request.py  the body of a request, checked before an engine sees it; message.py one message of it
engine.py   what an engine has to do: make a prompt of a conversation, and answer it token by token
answer.py   pieces of text → content, thoughts, calls and the reason why it ended
shapes.py   all of that as OpenAI answers it
schema.py   the server's own description, as OpenAPI
app.py      the routes, one answer at a time, whole or as a stream
"""
