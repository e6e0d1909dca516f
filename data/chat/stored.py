"""What a conversation store says of its template: the template itself, and what ends answers."""

from data.chat.template import ChatTemplate
from data.store.reader import Store


def stored_template(store: Store) -> ChatTemplate | None:
    """Return the template that a store was made with; None: it holds no conversations.

    Raises:
        DataError: The store's tokenizer or template is damaged.
    """
    chat = store.manifest.chat
    if chat is None:
        return None
    return ChatTemplate(chat.template, store.tokenizer, chat.names, chat.answer_ends)


def stored_stop_ids(store: Store) -> frozenset[int]:
    """Return the tokens after which a model that learned from a store has said all.

    The end-of-document token, and for conversations what ends their answers: as the template shows
    it, and as the store's own examples had it.
    """
    template = stored_template(store)
    if template is None:
        return frozenset({store.manifest.tokenizer.eos_id})
    return template.stop_ids
