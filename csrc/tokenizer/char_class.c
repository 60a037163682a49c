/* char_class.c - text to character classes. */
#include "char_class.h"

#include "utf8.h"

#define O EL_CC_OTHER
#define S EL_CC_SPACE
#define P EL_CC_ASCII_PUNCTUATION
#define Y EL_CC_ASCII_SYMBOL
#define D EL_CC_DIGIT
#define U EL_CC_UPPER
#define L EL_CC_LOWER
/* clang-format off */
static const uint8_t ascii[128] = {
    O, O, O, O, O, O, O, O, O, EL_CC_TAB, EL_CC_LF, S, S, EL_CC_CR, O, O,         /* 00 */
    O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,                               /* 10 */
    EL_CC_BLANK, P, P, P, Y, P, P, EL_CC_QUOTE, P, P, P, Y, P, P, P, EL_CC_SLASH, /* 20 */
    D, D, D, D, D, D, D, D, D, D, P, P, Y, Y, Y, P,                               /* 30 */
    P, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U,                               /* 40 */
    U, U, U, U, U, U, U, U, U, U, U, P, P, P, Y, P,                               /* 50 */
    EL_CC_BACKTICK, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,                  /* 60 */
    L, L, L, L, L, L, L, L, L, L, L, P, Y, P, Y, O,                               /* 70 */
};
/* clang-format on */
#undef O
#undef S
#undef P
#undef Y
#undef D
#undef U
#undef L

uint8_t el_class_of(uint32_t cp) { return cp < 128 ? ascii[cp] : el_unicode_class(cp); }

void el_classify(const char *text, size_t n, uint8_t *classes)
{
    for (size_t i = 0; i < n;) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t cp;
        int length;

        if (byte < 128) {
            classes[i++] = ascii[byte];
            continue;
        }
        length = el_utf8_next(text + i, n - i, &cp);
        if (length <= 0) {
            classes[i++] = EL_CC_SYMBOL;
            continue;
        }
        classes[i++] = el_unicode_class(cp);
        while (--length > 0)
            classes[i++] = EL_CC_INNER;
    }
}
