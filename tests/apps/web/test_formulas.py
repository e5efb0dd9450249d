"""Sixty formulas and more: each is drawn as it is meant, or shown as it was written."""

from __future__ import annotations

import time
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.web.formulas import mathml
from apps.web.latex import Unreadable
from apps.web.render import formula

# What is drawn, in short: an element that holds others is `name(…)`, rows are left out, texts stand as they are.
DRAWN = [
    (r"\frac{-b \pm \sqrt{b^2-4ac}}{2a}", "frac(−b± sqrt(sup(b 2)−4ac) 2a)"),
    (r"\frac12 + \tfrac{1}{3}", "frac(1 2)+ style(frac(1 3))"),
    (r"x = a_0 + \cfrac{1}{a_1 + \cfrac{1}{a_2}}", "x= sub(a 0)+ style(frac(1 sub(a 1)+ style(frac(1 sub(a 2)))))"),
    (r"\sqrt[3]{x+1} = \sqrt2", "root(x+1 3)= sqrt(2)"),
    (r"{a+b \over c}", "frac(a+b c)"),
    (r"\binom{n}{k} = {n \choose k}", "( frac(n k))=( frac(n k))"),
    (r"\sum_{i=1}^{n} i^2", "underover(∑ i=1 n) sup(i 2)"),
    (r"\prod_{p\,\text{prime}} \frac{1}{1-p^{-s}}", "under(∏ p[]prime) frac(1 1− sup(p −s))"),
    (r"\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt\pi}{2}", "subsup(∫ 0 ∞) sup(e − sup(x 2))[]dx= frac(sqrt(π) 2)"),
    (r"\oint\limits_{\partial D} \omega", "under(∮ ∂D)ω"),
    (r"\lim_{x\to0}\frac{\sin x}{x}=1", "under(lim x→0) frac(sinx x)=1"),
    (r"\max_{\theta} \mathbb{E}\left[\log p_\theta(x)\right]", "under(max θ)𝔼[log sub(p θ)(x)]"),
    (r"\operatorname*{arg\,max}_{a} Q(s,a)", "under(arg max a)Q(s,a)"),
    (r"\operatorname{KL}(p \| q) = \mathrm{Var}(X)", "KL(p‖q)=Var(X)"),
    (r"\sum_{\substack{0<i<n\\ i\ne k}} a_i", "under(∑ table(tr(td(0<i<n)) tr(td(i≠k)))) sub(a i)"),
    (
        r"\begin{aligned} a &= b + c \\ &= d \end{aligned}",
        "table(tr(td:right(a) td:left(=b+c)) tr(td:right() td:left(=d)))",
    ),
    (r"\begin{align*}x&=1,&y&=2\\\end{align*}", "table(tr(td:right(x) td:left(=1,) td:right(y) td:left(=2)))"),
    (r"\begin{gathered}a=b\\c=d\end{gathered}", "table(tr(td:center(a=b)) tr(td:center(c=d)))"),
    (
        r"|x| = \begin{cases} x & \text{if } x \ge 0 \\ -x & \text{otherwise} \end{cases}",
        "|x|={ table(tr(td:left(x) td:left(if x≥0)) tr(td:left(−x) td:left(otherwise)))",
    ),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        "( table(tr(td:center(1) td:center(2)) tr(td:center(3) td:center(4))))",
    ),
    (
        r"\det\begin{vmatrix} a & b \\ c & d \end{vmatrix} = ad-bc",
        "det| table(tr(td:center(a) td:center(b)) tr(td:center(c) td:center(d)))|=ad−bc",
    ),
    (
        r"\left[\begin{array}{cc|c} 1 & 0 & 5 \\ \hline 0 & 1 & 6 \end{array}\right]",
        "[ table(tr(td:center(1) td:center/line-right(0) td:center(5))"
        " tr(td:center/line-top(0) td:center/line-right/line-top(1) td:center/line-top(6)))]",
    ),
    (
        r"\begin{bmatrix} a_{11} & \cdots \\ \vdots & \ddots \end{bmatrix}^{-1}",
        "sup([ table(tr(td:center(sub(a 11)) td:center(⋯)) tr(td:center(⋮) td:center(⋱)))] −1)",
    ),
    (
        r"A^{\begin{smallmatrix}0&1\\1&0\end{smallmatrix}}",
        "sup(A table(tr(td:center(0) td:center(1)) tr(td:center(1) td:center(0))))",
    ),
    (r"P(\text{rain} \mid \text{clouds, $t>0$}) = 50\%", "P(rain∣clouds, t>0)=50%"),
    (r"\text{速度} = \frac{\text{距离}}{\text{时间}}", "速度= frac(距离 时间)"),
    (r"温度 = 5 \times 10^3", "温度=5× sup(10 3)"),
    (
        r"\hat{y} = \bar{x} + \tilde{\beta} + \dot{q} + \ddot{q}",
        "over(y ^)= over(x ¯)+ over(β ~)+ over(q ˙)+ over(q ¨)",
    ),
    (r"\vec{F} = m\vec{a},\quad \overline{AB}", "over(F →)=m over(a →),[] over(AB ‾)"),
    (r"\underbrace{1+\dots+1}_{n \text{ times}}", "under(under(1+…+1 ⏟) n times)"),
    (r"\overbrace{a+b}^{c}\,\overrightarrow{PQ}", "over(over(a+b ⏞) c)[] over(PQ →)"),
    (r"f'(x) + f''(x) + y'^2 + x_1'", "sup(f ′)(x)+ sup(f ′′)(x)+ sup(y ′2)+ subsup(x 1 ′)"),
    (r"\mathbb{R}^n \ni \mathbf{x}, \mathcal{L}, \mathfrak{g}, \mathsf{T}", "sup(ℝ n)∋𝐱,ℒ,𝔤,𝖳"),
    (r"\boldsymbol{\alpha} \cdot \bm{x}_i + \mathbf{12}", "𝜶· sub(𝒙 i)+𝟏𝟐"),
    (r"\boxed{E = mc^2}", "enclose(E=m sup(c 2))"),
    (r"\frac{\cancel{x}y}{\cancel{x}}", "frac(enclose(x)y enclose(x))"),
    (r"E = mc^2 \tag{1}", "E=m sup(c 2)[](1)"),
    (r"a + \textcolor{red}{b} + {\color{blue} c + d}", "a+ style(b)+ style(c+d)"),
    (r"a\,b\;c\quad d\!e~f\ g", "a[]b[]c[]d[]e[]f[]g"),
    (r"\left\{ x \,\middle|\, x > 0 \right\}", "{x[]|[]x>0}"),
    (r"\left. \frac{df}{dx} \right|_{x=0}", "sub(frac(df dx)| x=0)"),
    (r"\Bigl( \bigl[ x \bigr] \Bigr)", "([x])"),
    (r"\lfloor x \rfloor + \lceil y \rceil + \langle u, v \rangle", "⌊x⌋+⌈y⌉+⟨u,v⟩"),
    (r"a \equiv b \pmod{n}, \quad a \bmod b", "a≡b[](modn),[]amodb"),
    (r"17 \mod 5 = 2", "17mod5=2"),
    (r"x \notin A \not\subset B \not= C", "x∉A⊄B≠C"),
    (r"A \xrightarrow[k]{\text{heat}} B", "A underover(⟶ k heat)B"),
    (r"x \overset{\text{def}}{=} y \underset{n}{\to} z", "x over(= def)y under(→ n)z"),
    (r"{}^{14}_{6}\mathrm{C} + \mathrm{H}_2\mathrm{O}", "subsup( 6 14)C+ sub(H 2)O"),
    (r"\forall \epsilon > 0\; \exists \delta : \Gamma \subseteq \Omega", "∀ϵ>0[]∃δ:Γ⊆Ω"),
    (r"\neg p \land q \implies r \iff s \lor \top", "¬p∧q⟹r⟺s∨⊤"),
    (r"\nabla \times \mathbf{E} = -\frac{\partial \mathbf{B}}{\partial t}", "∇×𝐄=− frac(∂𝐁 ∂t)"),
    (r"\bra{\phi} H \ket{\psi}", "⟨ϕ|H|ψ⟩"),
    (r"2^10 + x_12", "sup(2 1)0+ sub(x 1)2"),
    (r"3.14 + .5 = 1{,}000.5", "3.14+.5=1,000.5"),
    (r"\displaystyle\sum_{i} \textstyle\sum_j", "style(under(∑ i) style(under(∑ j)))"),
    (r"\phantom{x}\sim\hspace{1em}\ell", "phantom(x)∼[]ℓ"),
    (r"x^{y^{z}}_{i_j}", "subsup(x sub(i j) sup(y z))"),
    (r"\begin{equation} a = b \end{equation}", "table(tr(td:center(a=b)))"),
]
WRITTEN = [
    r"\frac{1}{2",
    r"\frac{1}",
    r"\frac",
    r"{a",
    r"a}",
    r"x^",
    r"x^2^3",
    r"x_1_2",
    r"a & b",
    r"a \\ b",
    r"\left( x",
    r"x \right)",
    r"\left x \right)",
    r"\sqrt[3{x}",
    r"\foo{x}",
    r"\begin{aligned} a &= b",
    r"a \end{aligned}",
    r"\begin{aligned} a \end{align}",
    r"\begin{tikzpicture}\draw\end{tikzpicture}",
    r"\begin{cases} a & b & c \end{cases}",
    r"\begin{array}{cq} a & b \end{array}",
    r"\begin{array}{c} a & b \end{array}",
    r"\begin{array}{} a \end{array}",
    r"\begin{x",
    r"\begin",
    r"\text{a",
    r"\text{a \textbf{b}}",
    r"\text{a $x}",
    r"\text{a & b}",
    r"\mathbb{\alpha}",
    r"\operatorname{a $x$}",
    r"\color{puce}{x}",
    r"\color{red;background:url(x)}{x}",
    r"\hspace{900cm}",
    r"\hspace{x}",
    r"a \over b \over c",
    r"x \limits_a",
    r"\not{ab}",
    r"\ce{H2O}",
    r"\overparen{AB}",
    r"\cuberoot{8}",
    r"\def\x{1}\x",
    r"\newcommand{\x}{1}\x",
    r"\href{http://evil.example}{x}",
    r"\class{x}{y}",
    r"\style{color:red}{y}",
    r"\unicode{x41}",
    r"\require{x}",
    r"\input{/etc/passwd}",
    r"\verb|x|",
    r"50% of it",
    r"a # b",
    "x \u202e y",
    "\\",
    r"a \middle| b",
    r"\hline",
]
QUIET = ("mi", "mn", "mo", "mtext", "mrow", "mspace")
ONE_ROW = ("mtd", "msqrt", "menclose", "mphantom", "mstyle")
PIECES = r"""{ } [ ] _ ^ ' & $ # % ~ | \\ \left \right \middle ( ) . \frac \sqrt \text \begin \end {aligned} {array}
    {cc|} \hline \over \limits \sum \mathbb \operatorname * \hat \not \big \tag \color {red} \textcolor \hspace {1em}
    \substack \xrightarrow \pmod \rm x 1 = < \alpha 语 é \{ \}"""


def short(html: str) -> str:
    """A formula's tree on one line. Fences and texts are what they show; a space is []."""

    def told(element: ElementTree.Element) -> str:
        name = element.tag.removeprefix("m")
        inside = "".join(told(each) if each.tag in QUIET else f" {told(each)}" for each in element).strip()
        if element.tag in ("mi", "mn", "mo", "mtext"):
            return (element.text or "").replace("\u00a0", " ").replace("\u2009", " ")
        if element.tag in ("mrow", "math"):
            return inside
        if element.tag == "mspace":
            return "[]"
        if element.tag == "mtd":
            name = "/".join(
                [f"td:{element.get('columnalign')}".removesuffix(":None"), *element.get("class", "").split()]
            )
        parts = inside if element.tag in ONE_ROW else " ".join(told(each) for each in element)
        return f"{name}({parts})"

    return told(ElementTree.fromstring(html))


@pytest.mark.parametrize(("latex", "drawn"), DRAWN)
def test_what_is_known_is_drawn(latex: str, drawn: str) -> None:
    assert short(mathml(latex, display=True)) == drawn


@pytest.mark.parametrize("latex", WRITTEN)
def test_what_is_not_known_or_broken_is_shown_as_written(latex: str) -> None:
    with pytest.raises(Unreadable):
        mathml(latex, display=True)
    assert formula(latex, False).startswith('<code class="as-written" title="Shown as source')


def test_signs_belong_to_what_follows_after_another_sign() -> None:
    assert 'form="prefix">−' in mathml("x = -b", True)
    assert "form" not in mathml("x - b", True) + mathml("|x| - f(x) - b", True)


def test_columns_names_and_letters_are_drawn_as_latex_draws_them() -> None:
    assert mathml(r"\begin{split} a &= b \end{split}", True).count('columnspacing="0em" displaystyle="true"') == 1
    assert '<mi mathvariant="normal">d</mi><mi>x</mi>' in mathml(r"\mathrm{d}x", True)
    assert '<mi mathvariant="normal">Γ</mi><mi>γ</mi>' in mathml(r"\Gamma\gamma", True)
    assert 'rspace="0.167em">sin</mo><mi>x' in mathml(r"\sin x", True)
    assert 'rspace="0">sin</mo><mo stretchy="false">(' in mathml(r"\sin(x)", True)
    assert 'movablelimits="false">∑</mo><mi>i</mi></munder>' in mathml(r"\sum\limits_i", False)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*PIECES.split(), " "]), max_size=25))
def test_no_formula_fails_otherwise(pieces: list[str]) -> None:
    """Read or `Unreadable`; and what is read is whole: each group, bracket and environment that is opened is closed."""
    latex = "".join(pieces)
    try:
        mathml(latex, display=True)
    except Unreadable:
        return
    assert latex.count(r"\left") - latex.count(r"\right") == 0
    assert latex.count(r"\begin") == latex.count(r"\end")


@pytest.mark.parametrize(
    "piece",
    [
        r"\frac{",
        "{",
        r"\sqrt",
        "x^{",
        r"\left(",
        r"\begin{array}{c}",
        r"\text{$",
        "x'",
        "a&",
        "1",
        r"\hat",
        "漢",
        r"\{",
    ],
)
def test_no_formula_takes_long(piece: str) -> None:
    begun = time.process_time()
    assert formula(piece * 2_000, True)
    assert time.process_time() - begun < 1
