"""`turnwire chat`: a conversation in the terminal, on the public API alone.

The screen stays a plain terminal: what is finished is printed once and scrolls away like any output; at most six rows
at the bottom are drawn again while a turn runs (`screen`). Answers are cut into finished pieces as they come
(`blocks`), so that the cost of an answer grows with its length and not with its square.
"""
