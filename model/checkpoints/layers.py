"""The key maps of single layers, which the formats put together under names of their own."""

from model.checkpoints.keymap import Entry

IN_PROJ = ("z_proj", "x_proj", "B_proj", "C_proj", "dt_proj")
CONVS = ("x_conv", "B_conv", "C_conv")


def head(theirs: str, tied: bool, *, always: bool = False) -> Entry:
    """The head; a tied one is the embedding, which is written once more if the format `always` has a head."""
    return Entry(theirs, ("embedding.weight" if tied else "head.weight",), copy=tied, written=always or not tied)


def mamba(theirs: str, ours: str) -> list[Entry]:
    """A mixer whose in_proj rows are [z, x, B, C, dt] and whose convolution channels are [x, B, C]."""
    return [
        Entry(f"{theirs}.in_proj.weight", tuple(f"{ours}.{name}.weight" for name in IN_PROJ)),
        Entry(f"{theirs}.in_proj.bias", tuple(f"{ours}.{name}.bias" for name in IN_PROJ)),
        Entry(f"{theirs}.conv1d.weight", tuple(f"{ours}.{name}.weight" for name in CONVS), unit_dim=True),
        Entry(f"{theirs}.conv1d.bias", tuple(f"{ours}.{name}.bias" for name in CONVS)),
        Entry(f"{theirs}.A_log", (f"{ours}.scan.A_log",)),
        Entry(f"{theirs}.D", (f"{ours}.scan.D",)),
        Entry(f"{theirs}.dt_bias", (f"{ours}.scan.dt_bias",)),
        Entry(f"{theirs}.norm.weight", (f"{ours}.norm.weight",)),
        Entry(f"{theirs}.out_proj.weight", (f"{ours}.out_proj.weight",), split=1),
        Entry(f"{theirs}.out_proj.bias", (f"{ours}.out_proj.bias",), split=None),
    ]


def same_names(theirs: str, ours: str, *modules: str) -> list[Entry]:
    """Linear layers that are called alike, with their biases."""
    return [
        Entry(f"{theirs}.{module}.{kind}", (f"{ours}.{module}.{kind}",))
        for module in modules
        for kind in ("weight", "bias")
    ]


def attention(theirs: str, ours: str) -> list[Entry]:
    """Queries, keys, values and output apart."""
    return same_names(theirs, ours, "q_proj", "k_proj", "v_proj", "o_proj")
