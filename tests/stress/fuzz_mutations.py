"""How inputs are spoilt: bytes as they stand, or what a container holds, which is put right again.

It is imported where atheris sees it: zipfile and gzip are among what it watches.
"""

import gzip
import io
import random
import re
import zipfile
from collections.abc import Callable, Sequence

from gtc_pyg.recommend.manifest import CONFIG, ITEMS, TENSORS, USERS

Mutation = Callable[[bytes, random.Random], bytes]
FILES = (CONFIG, TENSORS, USERS, ITEMS)

TABLE = (b"\t", b"\n", b"\r", b"\r\n", b'"', b"\xef\xbb\xbf", b"\0", b"-1", b"1e9", b"userID")
YAML = (
    *(b"&a ", b"*a", b"!!python/object/apply:os.system ['true']", b"!!float ", b"!!int ''"),
    *(b"!!timestamp x", b"!!bool x", b"!!binary x", b"? ", b"<<: ", b"[", b"{", b"- ", b": "),
    *(b"null", b".nan", b".inf", b"1e400", b"-1", b"0", b"1:60", b"2001-99-99", b"True", b"|"),
    *(b"99999999999999999999", b"num_layers: ", b"hidden_channels: ", b"in_channels: ", b"\n  "),
    *(b"GTC", b"FREEDOM", b"MGCN", b"LightGCN", b"GraphRecommender", b"num_steps: ", b"%YAML 9\n"),
    b"a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
    b"a: &a {k: 1}\n"
    + b"".join(b"%c: &%c {<<: [*%c,*%c]}\n" % (i, i, i - 1, i - 1) for i in b"bcdefgh"),
)
PICKLE = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n"),
    *(b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.numeric\n_frombuffer\n"),
    *(b"R", b"b", b"i", b"o", b"\x81", b"\x92", b"\x93", b"\x82\x01", b"Q", b"Px\n", b"("),
    *(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x96\0\0\0\xff\x01\0\0\0", b"r\xff\xff\xff\x7f"),
    *(b"\x85", b"\x86", b"\x87", b"}", b"s", b"u", b")", b"t", b"2", b"0", b"1", b"\x94", b"."),
)
NPY = (b"'descr'", b"'shape'", b"|O", b"<f8", b"<c16", b"|V0", b"(", b")", b",", b"9999999999")
LITERAL = (b"{", b"[", b"(", b"'asin': ", b"-", b"+", b"1j", b"b''", b"...", b"**", b"lambda:0")
PARTS = (b"PK\x01\x02", b"PK\x05\x06", b"PAR1", b'"dtype":"F64"', b'"shape":[', b'"data_offsets"')


def mutate(
    content: bytes, rng: random.Random, tokens: Sequence[bytes], others: Sequence[bytes]
) -> bytes:
    """A few changes: bytes, pieces, numbers, tokens, a part of another input, an end cut off."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randint(0, len(out))
        to = min(len(out), at + rng.choice((1, 1, 2, 4, 8, 32)))
        how = rng.randrange(9)
        if how == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            out[at:to] = rng.randbytes(rng.choice((1, 1, 2, 4, 8)))
        elif how == 2:
            del out[at:to]
        elif how == 3:
            out[at:at] = out[at:to] * rng.choice((1, 2, 3, 50))
        elif how == 4 and tokens:
            out[at : rng.choice((at, to))] = rng.choice(tokens)
        elif how == 5:
            number = rng.choice((0, 1, 255, 2**15, 2**31 - 1, 2**32 - 1, 2**62, 2**63))
            out[at : at + 8] = number.to_bytes(8, rng.choice(("little", "big")))
        elif how == 6:
            found = list(re.finditer(rb"-?\d+", out[:4096]))
            if found:
                picked = rng.choice(found)
                new = rng.choice((b"-1", b"0", b"1e999", b"9" * rng.choice((4, 10, 19, 30)), b"1."))
                out[picked.start() : picked.end()] = new
        elif how == 7 and others:
            other = rng.choice(others)
            start = rng.randint(0, len(other))
            out[at:] = other[start:]
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def inside_npy(content: bytes, rng: random.Random, mutate: Mutation) -> bytes:
    """The header as text, and its length put right."""
    end = content.find(b"\n") + 1 or len(content)
    head = mutate(content[10:end].rstrip(b" \n"), rng) + b"\n"
    return content[:8] + (len(head) % 2**16).to_bytes(2, "little") + head + content[end:]


def inside_zip(content: bytes, rng: random.Random, mutate: Mutation) -> bytes:
    """One member spoilt (as an array, half of the time), dropped, doubled or renamed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = [(m.filename, archive.read(m)) for m in archive.infolist()]
    except Exception:
        return mutate(content, rng)
    if not parts:
        return mutate(content, rng)
    which = rng.randrange(len(parts))
    name, part = parts[which]
    how = rng.randrange(8)
    if how == 0:
        del parts[which]
    elif how == 1:
        parts.append((rng.choice(["../x.npy", "/tmp/x.npy", name, "format"]), part))
    elif how < 5:
        parts[which] = (name, mutate(part, rng))
    else:
        parts[which] = (name, inside_npy(part, rng, mutate))
    out = io.BytesIO()
    squeeze = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(out, "w", squeeze) as archive:
        for name, part in parts:
            archive.writestr(zipfile.ZipInfo(name), part, compress_type=squeeze)
    return out.getvalue()


def inside_gzip(content: bytes, rng: random.Random, mutate: Mutation) -> bytes:
    try:
        text = gzip.decompress(content)
    except Exception:
        return mutate(content, rng)
    return gzip.compress(mutate(text, rng), 1, mtime=0)


def inside_folder(content: bytes, rng: random.Random, mutate: Mutation) -> bytes:
    """The header of the tensors as JSON with its length put right; bytes of the tables flipped."""
    which, content = content[:1], content[1:]
    kind = FILES[which[0] % 4] if which else CONFIG
    if kind == TENSORS and len(content) > 8:
        size = int.from_bytes(content[:8], "little")
        head = mutate(content[8 : 8 + size], rng)
        content = len(head).to_bytes(8, "little") + head + content[8 + size :]
    elif kind in (USERS, ITEMS) and content:
        flipped = bytearray(content)
        for _ in range(rng.randint(1, 6)):
            flipped[rng.randrange(len(flipped))] = rng.randrange(256)
        content = bytes(flipped)
    else:
        content = mutate(content, rng)
    return which + content
