"""The demo's requests: short, varied, real text, as the lines of a batch input file.

`chat_lines` goes round the kinds of request below, each with its own system prompt, temperature and shape of answer,
for as long as lines are wanted; a text that comes again comes with another seed: no two lines are the same request.
Answers are kept to 8 to 32 tokens: a small model on two cores writes about 70 tokens a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, cycle, islice, zip_longest
from typing import Any

Line = dict[str, Any]
_Body = dict[str, Any]

_REVIEWS = (
    "The kettle boils in two minutes and looks lovely.",
    "Arrived broken, and nobody answers my letters.",
    "I have bought these socks three times now. Perfect.",
    "The battery died after a week.",
    "My daughter will not put this book down.",
    "The soup was cold and the waiter was rude.",
    "Quiet room, soft bed, kind staff. We will be back.",
    "It smells of glue, even after a month.",
    "The lamp is far too dim to read by.",
    "Best bread in town, worth the queue.",
    "The app crashes each time I open a photo.",
    "Fits well, washes well, and the colour stays.",
)
_WORDS = ("bread", "river", "window", "Monday", "thank you", "train station", "apple", "winter", "blue", "good night")
_LANGUAGES = ("French", "Spanish", "German", "Italian")
_PARAGRAPHS = tuple(
    " ".join(paragraph.split())
    for paragraph in """
The ferry to the island was cancelled this morning because of high waves. The harbour office expects the next
one to leave at four in the afternoon. Tickets stay valid.

Honeybees tell each other where flowers are by dancing. The angle of the dance gives the direction from the
sun, and its length gives the distance.

The library on Mill Street closes for repairs in March. Readers can return books at the town hall. It opens
again in May with a larger room for children.

Our team moved the nightly backup from two o'clock to five. Since then the shop's web site has been fast at
night, and no backup has failed.

Tomatoes like sun, deep water and little wind. Pick the lowest leaves off when fruits appear, and feed the
plants once a week.

The old bridge carried trains until 1962. Today it is a path for walkers, and on clear days the sea can be
seen from it.

Sales of electric bicycles rose by a third this spring. Shops say that older riders buy most of them, and that
repairs take longer than before.

A glacier moves slowly downhill under its own weight. On its way it grinds the rock below to flour, which
colours the lakes turquoise.
""".split("\n\n")
)
_SENTENCES = (
    "gonna be late, start without me",
    "We are unable to accommodate your request at this time.",
    "the thing broke again and I don't know why",
    "Please be advised that the lift is out of service.",
    "that film was way too long",
    "Your payment has not been received as of today.",
    "can u send me the numbers by tomorrow",
    "It is imperative that all windows be closed.",
)
_TONES = ("a polite sentence", "a short and friendly sentence", "a question")
_PEOPLE = (
    "Ada Brown, 36, repairs clocks in Leeds.",
    "Meet Tomas Novak (52), a baker from Brno.",
    "Leila is 19 years old and studies law in Tunis.",
    "At 74, Henrik Olsen still rows to work in Bergen.",
    "Our new colleague Mei Chen, 28, comes from Taipei.",
    "The winner, Rosa Diaz, is 11 and lives in Lima.",
)
_CITIES = ("Paris", "Tokyo", "Cairo", "Oslo", "Lima", "Nairobi", "Toronto", "Delhi")
_QUESTIONS = (
    "Why is the sky blue?",
    "What is the capital of Italy?",
    "How many legs does a spider have?",
    "What do cows drink?",
    "Which planet is closest to the sun?",
    "What is ice made of?",
    "Who wrote Romeo and Juliet?",
    "What colour are ripe bananas?",
    "How many days are in a leap year?",
    "What is the opposite of hot?",
)
_TICKETS = (
    "I was charged twice for the same order.",
    "The page stays white after I sign in.",
    "Where is my parcel? It should have come on Friday.",
    "How do I change the language of the menu?",
    "Please send me the invoice for May.",
    "The export button does nothing.",
)


def chat_lines(wanted: int, models: tuple[str, ...]) -> Iterator[Line]:
    """The first `wanted` lines for `/v1/chat/completions`; the kinds of request take turns, and so do the models."""
    names = cycle(models)
    bodies = (body for turn in count() for body in _one_round(turn))
    for number, body in enumerate(islice(bodies, wanted), start=1):
        yield _line(number, "/v1/chat/completions", {"model": next(names), **body})


def embedding_lines(wanted: int, model: str) -> Iterator[Line]:
    """The first `wanted` lines for `/v1/embeddings`: single texts, and every fourth a pair of them."""
    texts = cycle((*_REVIEWS, *_SENTENCES, *_TICKETS))
    for number in range(1, wanted + 1):
        text = next(texts)
        yield _line(number, "/v1/embeddings", {"model": model, "input": text if number % 4 else [text, next(texts)]})


def _line(number: int, url: str, body: _Body) -> Line:
    return {"custom_id": f"{url.split('/')[2]}-{number:05d}", "method": "POST", "url": url, "body": body}


def _one_round(turn: int) -> Iterator[_Body]:
    """Every text of every kind once, the kinds interleaved; `turn` becomes the seed."""
    columns = ([make(text) for text in texts] for make, texts in _KINDS)
    for row in zip_longest(*columns):
        for body in row:
            if body is not None:
                yield {**body, "seed": 1000 + turn}


def _chat(text: str, *, system: str | None = None, tokens: int = 16, temperature: float = 0.0) -> _Body:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    return {"messages": messages, "max_tokens": tokens, "temperature": temperature}


def _json_schema(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def _sentiment(review: str) -> _Body:
    text = f"Review: {review}\nIs the customer happy? Answer positive or negative."
    body = _chat(text, system="You classify reviews. Answer with one word.", tokens=8)
    return {**body, "stop": ["\n"]}


def _sentiment_json(review: str) -> _Body:
    body = _chat(f"Classify this review: {review}", system="You answer in JSON.", tokens=32)
    return {**body, "response_format": _json_schema("review", {"sentiment": {"enum": ["positive", "negative"]}})}


def _translation(word_and_language: tuple[str, str]) -> _Body:
    word, language = word_and_language
    examples = [
        {"role": "user", "content": f"Translate 'water' to {language}."},
        {
            "role": "assistant",
            "content": {"French": "eau", "Spanish": "agua", "German": "Wasser"}.get(language, "acqua"),
        },
    ]
    body = _chat(f"Translate '{word}' to {language}.", tokens=8)
    return {**body, "messages": [*examples, *body["messages"]]}


def _summary(paragraph: str) -> _Body:
    return _chat(f"{paragraph}\n\nSummarize this in one short sentence.", tokens=32, temperature=0.3)


def _sum(numbers: tuple[int, int]) -> _Body:
    first, second = numbers
    example = [{"role": "user", "content": "4 + 9 ="}, {"role": "assistant", "content": "13"}]
    body = _chat(f"{first} + {second} =", tokens=8)
    return {**body, "messages": [*example, *body["messages"]]}


def _rewriting(sentence_and_tone: tuple[str, str]) -> _Body:
    sentence, tone = sentence_and_tone
    return _chat(f"Rewrite as {tone}: {sentence}", system="You are a careful editor.", tokens=24, temperature=0.7)


def _person(sentence: str) -> _Body:
    body = _chat(f"Who is this about? {sentence}", system="You extract the name and the age as JSON.", tokens=32)
    return {**body, "response_format": _json_schema("person", {"name": {"type": "string"}, "age": {"type": "integer"}})}


def _city(name: str) -> _Body:
    body = _chat(f"Give a JSON object with the country and continent of {name}.", tokens=32)
    return {**body, "response_format": {"type": "json_object"}}


def _question(question: str) -> _Body:
    return {**_chat(question, tokens=24, temperature=0.5), "top_p": 0.9}


def _ticket(ticket: str) -> _Body:
    body = _chat(ticket, system="You sort support tickets: billing, bug, delivery or question.", tokens=32)
    topics = ["billing", "bug", "delivery", "question"]
    return {
        **body,
        "response_format": _json_schema("ticket", {"topic": {"enum": topics}, "urgent": {"type": "boolean"}}),
    }


_KINDS: tuple[tuple[Callable[[Any], _Body], tuple[Any, ...]], ...] = (
    (_sentiment, _REVIEWS),
    (_translation, tuple((word, language) for word, language in zip(_WORDS * 2, _LANGUAGES * 5, strict=True))),
    (_summary, _PARAGRAPHS),
    (_sum, tuple((7 * step % 23 + 2, 5 * step % 19 + 3) for step in range(16))),
    (_rewriting, tuple((sentence, tone) for tone in _TONES for sentence in _SENTENCES)),
    (_person, _PEOPLE),
    (_city, _CITIES),
    (_question, _QUESTIONS),
    (_ticket, _TICKETS),
    (_sentiment_json, _REVIEWS),
)
