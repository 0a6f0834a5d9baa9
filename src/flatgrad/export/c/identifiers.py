"""Names of C from names of Python: legal, told apart, and nobody else's."""
from __future__ import annotations

import re
import unicodedata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Names", "identifier", "is_reserved", "reserved_because"]

KEYWORDS = frozenset("""
    alignas alignof asm auto bool break case catch char class const const_cast constexpr continue decltype
    default delete do double dynamic_cast else enum explicit export extern false float for friend goto if
    inline int long mutable namespace new noexcept nullptr operator private protected public register
    reinterpret_cast restrict return short signed sizeof static static_assert static_cast struct switch
    template this thread_local throw true try typedef typeid typename typeof typeof_unqual union unsigned
    using virtual void volatile wchar_t while and and_eq bitand bitor compl not not_eq or or_eq xor xor_eq
    co_await co_return co_yield concept requires char8_t char16_t char32_t consteval constinit linux unix
    main near far interrupt""".split())   # of C and C++, and what some compilers add

MATH = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh drem erf erfc exp exp10 exp2 expm1
    fabs fdim finite floor fma fmax fmin fmod frexp gamma hypot ilogb isinf isnan j0 j1 jn ldexp lgamma
    llrint llround log log10 log1p log2 logb lrint lround modf nan nearbyint nextafter nexttoward pow
    pow10 remainder remquo rint round roundeven scalb scalbln scalbn significand sin sincos sinh sqrt tan
    tanh tgamma trunc y0 y1 yn cabs carg cexp cimag clog conj cpow cproj creal csin ccos csqrt ctan csinh
    ccosh ctanh cacos casin catan cacosh casinh catanh""".split()

LIBRARY = frozenset([name + end for name in MATH for end in ("", "f", "l")] + """
    abort abs access acct alarm aligned_alloc alloca asctime atexit atof atoi atol atoll bcmp bcopy
    bsearch bzero calloc clearerr clock close connect creat ctime difftime div dup dup2 errno exit fclose
    feof ferror fflush ffs fgetc fgetpos fgets fopen fork fpclassify fprintf fputc fputs fread free
    freopen fscanf fseek fsetpos ftell ftw fwrite getc getchar getenv gets gmtime imaxabs imaxdiv index
    isalnum isalpha isascii isblank iscntrl isdigit isfinite isgraph isgreater isless islower isnormal
    isprint ispunct isspace isunordered isupper isxdigit iszero kill labs ldiv link listen llabs lldiv
    localeconv localtime longjmp malloc math_errhandling matherr mblen mbstowcs mbtowc memccpy memchr
    memcmp memcpy memmove mempcpy memset mktime offsetof open pause perror pipe poll printf putc putchar
    puts qsort quick_exit raise rand random read realloc recv remove rename rewind rindex scanf select
    send setbuf setjmp setlocale setvbuf signal signbit signgam sleep snprintf socket sprintf srand
    srandom sscanf stat stdin stderr stdout stpcpy stpncpy strcat strchr strcmp strcoll strcpy strcspn
    strdup strerror strftime strlen strncat strncmp strncpy strndup strpbrk strrchr strspn strstr strtod
    strtof strtok strtol strtold strtoll strtoul strtoull strxfrm sync system thrd time timegm times
    tmpfile tmpnam toascii tolower toupper truncate ungetc unlink va_arg va_copy va_end va_start vfork
    vfprintf vprintf vscanf vsnprintf vsprintf vsscanf wait wcstombs wctomb wmemcpy write NULL INFINITY
    NAN HUGE_VAL EOF TRUE FALSE FILE assert double_t float_t div_t size_t ptrdiff_t max_align_t intptr_t
    uintptr_t int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t I complex imaginary""".split())

GREEK = {"lamda": "lambda"}   # as Unicode writes it, and all others


def reserved_because(name: Any) -> Any:
    """What a name means in C or in C++, or None."""
    if name in KEYWORDS:
        return "a keyword"
    if name in LIBRARY:
        return "a name of the C library"
    if re.match(r"_[A-Z_]|fg_|FG_|(u?int|atomic|memory)[A-Z0-9]*_t$|M_[A-Z]|FLT_|DBL_", name):
        return "kept for compilers and libraries"
    return None


def is_reserved(name: Any) -> Any:
    return reserved_because(name) is not None


def identifier(text: Any) -> Any:
    """The text as an identifier of C, which may be reserved: letters of other alphabets in those of English, and one _
    in place of what no identifier has."""
    parts = []
    for c in unicodedata.normalize("NFKD", text):
        if c.isascii():
            parts.append(c if c.isalnum() or c == "_" else "_")
        elif not unicodedata.combining(c):
            letter = re.fullmatch(r"GREEK (?:SMALL|CAPITAL) LETTER (?:FINAL )?(\w+)", unicodedata.name(c, ""))
            word = letter and letter[1].lower()
            parts.append(GREEK.get(word, word).capitalize() if word and c.isupper() else GREEK.get(word, word) if word
                         else f"u{ord(c):x}" if c.isalnum() else "_")
    name = re.sub("__+", "_", "".join(parts)).strip("_")
    return f"x{name}" if not name or name[0].isdigit() else name


class Names:
    """Names that have been given, so that no other gets the same.

    Parameters
    ----------
    taken : iterable of str
    """

    taken: Any

    def __init__(self, taken: Any = ()) -> None:
        self.taken = set(taken)

    def new(self, text: Any, *others: Any) -> Any:
        """The first of these texts that is free, as an identifier; or the first of them and a number."""
        for candidate in (text, *others):
            name = identifier(candidate)
            if not self.is_taken(name):
                break
        else:
            first = identifier(text)
            if is_reserved(f"{first}_2"):   # for what it begins with
                first = f"c_{first}"
            name, k = first + "_" * self.is_taken(first), 2
            while self.is_taken(name):
                name, k = f"{first}_{k}", k + 1
        self.taken.add(name)
        return name

    def is_taken(self, name: Any) -> Any:
        return name in self.taken or is_reserved(name)
