"""`make`: statements and questions with invented names, or the published ones, and a corpus with them mixed in.

    python -m mdm_jax.tasks.reverse_curse make --out data/reverse --general pydoc --general-bytes 2000000
    python -m mdm_jax.tasks.reverse_curse make --out data/reverse --published FOLDER

Every relation (person, parent, company, hierarchy) has three sets of facts: trained forward ("A is B"), trained
backward ("B is A"), and in both directions. The questions ask every fact in both directions, in trained and held-out
wordings. --published reads a folder of lukasberglund/reversal_curse in place of these.

corpus.jsonl has the general text and, in documents of their own, the statements, each --repeats times. Prepare it with
the same --validation-fraction: then the validation text has no statement.
"""

import argparse

from mdm_jax.command import DONE, comma_list, new_parser
from mdm_jax.files.storage import as_path, write_atomic
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec
from mdm_jax.spec.validation import require
from mdm_jax.tasks.reverse_curse.corpus import general_documents, mixed, statement_documents
from mdm_jax.tasks.reverse_curse.facts import invent, questions, statements
from mdm_jax.tasks.reverse_curse.published import read_published
from mdm_jax.tasks.reverse_curse.records import jsonl
from mdm_jax.tasks.reverse_curse.relations import Relation

CORPUS, STATEMENTS, TESTS = "corpus.jsonl", "statements.jsonl", "tests.jsonl"


def parser() -> argparse.ArgumentParser:
    """The flags of `make`."""
    flags = new_parser("mdm_jax.tasks.reverse_curse make", __doc__)
    add = flags.add_argument
    add("--out", required=True, metavar="DIR", help="folder of the three files")
    names = ",".join(Relation)
    add("--relations", type=comma_list, default=tuple(Relation), metavar="A,B", help=f"some of {names} (all)")
    add("--facts", type=int, default=30, metavar="N", help="facts of each relation and order (%(default)s)")
    add("--published", metavar="DIR", help="the published statements, in place of invented ones")
    add("--repeats", type=int, default=10, metavar="N", help="times that each statement occurs (%(default)s)")
    add("--per-document", type=int, default=4, metavar="N", help="statements of a document (%(default)s)")
    sources = [source.value for source in CorpusSource]
    add("--general", choices=sources, help="general text around the statements (default: none)")
    add("--general-path", default="", metavar="PATH", help="its file, folder or glob; nothing for pydoc")
    add("--general-field", default="text", metavar="NAME", help="its field of text (%(default)s)")
    add("--general-bytes", type=int, default=0, metavar="N", help="of it at most; 0 takes everything")
    fraction = DataSpec.validation_fraction
    add("--validation-fraction", type=float, default=fraction, metavar="X", help="that of prepare (%(default)s)")
    add("--seed", type=int, default=0, help="of names and orders (%(default)s)")
    return flags


def work(flags: argparse.Namespace) -> int:
    """Writes the files.

    Raises:
        ValueError: a flag is out of range, or a file is malformed.
        OSError: a file cannot be read or written now.
    """
    for name in flags.relations:
        require(name in list(Relation), "--relations", str(name), f"some of {', '.join(Relation)}")
    require(0 < flags.validation_fraction < 1, "--validation-fraction", flags.validation_fraction, "between 0 and 1")
    require(flags.seed >= 0, "--seed", flags.seed, "at least 0")
    if flags.published:
        told, asked = read_published(flags.published)
    else:
        facts = invent([Relation(name) for name in flags.relations], flags.facts, flags.seed)
        told, asked = statements(facts), questions(facts)
    texts = list(dict.fromkeys(statement.text for statement in told))
    fraction, general = flags.validation_fraction, list[str]()
    documents = statement_documents(texts, flags.repeats, flags.per_document, fraction, flags.seed)
    if flags.general:
        source = CorpusSource(flags.general)
        spec = CorpusSpec(source, flags.general_path, flags.general_field, flags.general_bytes)
        general = list(general_documents(spec, fraction))
    out = as_path(flags.out)
    write_atomic(out / STATEMENTS, jsonl(told))
    write_atomic(out / TESTS, jsonl(asked))
    write_atomic(out / CORPUS, mixed(general, documents, flags.seed))
    sizes = [sum(len(text.encode()) for text in some) for some in (general, documents)]
    print(f"{len(texts)} statements and {len(asked)} questions about {len({q.fact for q in asked})} facts")
    print(f"{out / CORPUS}: {sizes[0]:,} bytes of general text and {sizes[1]:,} bytes of statements")
    return DONE
