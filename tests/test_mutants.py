"""tests/mutants.py and tests/branches.py, as far as they can be asked without a build."""
import itertools
import textwrap

import branches
import mutants
import pytest

BORDER = textwrap.dedent('''\
    # a comment with a < b
    def clipped(items, least, most=10):
        """A docstring with 1 + 1."""
        found = []
        count = 0
        for item in items:
            if item < least or not item != most:
                continue
            found.append(item - least)
            count += 1
        return found, count, len(found) == count
    ''')
C = textwrap.dedent("""\
    #define TWO 2
    static int clipped(const int *items, int n, int least)
    {
        int count = 0; /* a + b */
        for (int i = 0; i < n; i++)
            if (items[i] > least && !(items[i] == 7))
                count++;
        count = count + (n >> 1);
        return count;
    }
    enum sizes { SMALL = 4, LARGE = 1 << 16 };
    """)


def made(text, mutant, name):
    switched = mutant.switched.format(m=name)
    return text[:mutant.start] + switched + text[mutant.end:]


def test_a_mutant_of_the_border_is_the_source_until_it_is_switched_on():
    asked = ([1, 5, 7, 10, 12], 5), ([], 0), ([10, 9], 9), ([3], 3)
    plain, seen = {}, {}
    exec(BORDER, plain)
    answers = [plain["clipped"](*arguments) for arguments in asked]
    places = mutants.places_in_border("a.pxi", BORDER)
    for mutant in places:
        for on in (False, True):
            namespace = {"FG_MUTANT": lambda number, on=on: on and number == 3}
            exec(made(BORDER, mutant, "FG_MUTANT(3)"), namespace)
            try:
                got = [namespace["clipped"](*arguments) for arguments in asked]
            except (TypeError, UnboundLocalError):
                got = None
            seen[str(mutant), on] = got
            assert on or got == answers, mutant
    changes = {mutant.change.split(" in ")[0] for mutant in mutants.places_in_border("a.pxi", BORDER)} - {""}
    assert changes == {"< -> <=", "or -> and", "not dropped", "!= -> ==", "negated", "- -> +", "0 -> 1", "1 -> 2",
                       "== -> !=", "dropped"}
    same = [text for (text, on), got in seen.items() if on and got == answers]
    assert not same, same


def test_places_in_c():
    found = {(mutant.line, mutant.change.split(" in ")[0]): made(C, mutant, "M").split("\n")[mutant.line - 1].strip()
             for mutant in mutants.places_in_c("a.c", C)}
    assert found == {
        (4, "0 -> 1"): "int count = (M ? (1) : (0)); /* a + b */",
        (5, "0 -> 1"): "for (int i = (M ? (1) : (0)); i < n; i++)",
        (5, "< -> <="): "for (int i = 0; (M ? (i <= n) : (i < n)); i++)",
        (6, "> -> >="): "if ((M ? (items[i] >= least) : (items[i] > least)) && !(items[i] == 7))",
        (6, "&& -> ||"): "if ((M ? (items[i] > least || !(items[i] == 7)) : (items[i] > least && !(items[i] == 7))))",
        (6, "! dropped"): "if (items[i] > least && M != !(items[i] == 7))",
        (6, "== -> !="): "if (items[i] > least && !((M ? (items[i] != 7) : (items[i] == 7))))",
        (6, "7 -> 8"): "if (items[i] > least && !(items[i] == (M ? (8) : (7))))",
        (6, "negated"): "if (!(items[i] > least && !(items[i] == 7)) == M)",
        (7, "dropped"): "{ if (!M) count++; }",
        (8, "dropped"): "{ if (!M) count = count + (n >> 1); }",
        (8, "+ -> -"): "count = (M ? (count - (n >> 1)) : (count + (n >> 1)));",
        (8, ">> -> <<"): "count = count + ((M ? (n << 1) : (n >> 1)));",
        (8, "1 -> 2"): "count = count + (n >> (M ? (2) : (1)));",
    }


def test_the_choice_is_the_seed_s_and_no_mutant_is_inside_another():
    def some(seed):
        paths = ["csrc/marks.h", "csrc/tape.c", "src/flatgrad/border/handles.pxi"]
        return mutants.chosen(mutants.ROOT, paths, 60, seed)

    assert [str(m) for m in some(1)] == [str(m) for m in some(1)] != [str(m) for m in some(2)]
    assert sum(m.path.startswith("csrc/") for m in some(1)) == 45
    for a, b in itertools.combinations(some(1), 2):
        assert a.path != b.path or a.end <= b.start or b.end <= a.start


def test_whom_the_compiler_blames():
    lines = {"csrc/tape.c": [(10, 10, 1), (12, 13, 2)], "src/flatgrad/border/walk.pxi": [(7, 7, 3)]}
    said = "csrc/tape.c:13:5: error: no\ncsrc/tape.c:10:5: warning: well\nsrc/flatgrad/border/walk.pxi:7:3: no\n"
    assert mutants.blamed(said, lines) == {2, 3}


GENERATED = """\
static int f(void) {
  /* "src/flatgrad/border/a.pxi":2
 *     if x and y:
*/
  if (__pyx_v_x) {
  } else {
    __pyx_t_1 = __pyx_v_x;
  }
  if (__pyx_t_1) {
  if (unlikely(!__pyx_t_2)) __PYX_ERR(0, 2, __pyx_L1_error)
  if (unlikely(__pyx_t_3)) {
  switch (__pyx_v_op) {
  switch (__pyx_nargs) {
  if (unlikely(__pyx_v_x == Py_None)) {
}
  if (__pyx_t_1) {
int twice(int n) {
    return n ? 2 * n : 0;
}
"""


def test_which_conditions_of_generated_code_are_written_in_the_border(tmp_path):
    border = tmp_path / "src" / "flatgrad" / "border"
    border.mkdir(parents=True)
    (border.parent / "_core.c").write_text(GENERATED)
    (border.parent / "_core.pyx").write_text("")
    (border / "a.pxi").write_text('cdef extern from *:\n    """\n    int twice(int n) {\n'
                                  '        return n ? 2 * n : 0;\n    }\n    """\n')
    generated = branches.Generated(tmp_path)
    assert generated.written == dict.fromkeys((5, 9, 11, 12), ("src/flatgrad/border/a.pxi", 2, 2))
    assert generated.verbatim == {17 + k: ("src/flatgrad/border/a.pxi", 3 + k) for k in range(3)}


@pytest.mark.parametrize("reason, code, said", [
    ("", 1, "csrc/a.c:2: f | if (a) | false"),
    ("csrc/a.c | f | if (a) | false | a is never 0", 0, " 50.00   1"),
    ("csrc/a.c | * | * | * | all of it", 0, ""),
    ("csrc/a.c | f | if (a) | true | a is never 1", 1, "taken or gone, but it has a reason: csrc/a.c | f | if (a)"),
])
def test_reasons(reason, code, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "tree" / "csrc").mkdir(parents=True)
    (tmp_path / "tree" / "csrc" / "a.c").write_text("int f(int a) {\n    if (a)\n")
    reasons = tmp_path / "reasons.txt"
    reasons.write_text(f"# of branches\n\n{reason}\n")
    monkeypatch.setattr(branches, "REASONS", reasons)
    monkeypatch.setattr(branches, "branches", lambda folder: {("csrc/a.c", 2, "f", 2): [[3, True], [0, False]]})
    assert branches.report(tmp_path) == code
    assert said in capsys.readouterr().out
