/* char_class.h - what the pre-tokenizers' regular expressions tell apart, one small number a code point.
 * Beyond ASCII that is the general category and white space (unicode_tables.c, generated); in ASCII also the single
 * characters that some expression names. */
#ifndef EL_CHAR_CLASS_H
#define EL_CHAR_CLASS_H

#include <stddef.h>
#include <stdint.h>

typedef enum el_char_class {
    /* these seven are what unicode_tables.c holds */
    EL_CC_OTHER = 0, /* controls, formats, unassigned */
    EL_CC_LETTER = 1,
    EL_CC_MARK = 2,
    EL_CC_NUMBER = 3,
    EL_CC_PUNCTUATION = 4,
    EL_CC_SYMBOL = 5,
    EL_CC_SPACE = 6, /* also vertical tab and form feed */
    /* ASCII only */
    EL_CC_LOWER = 7,
    EL_CC_UPPER = 8,
    EL_CC_DIGIT = 9,
    EL_CC_BLANK = 10,
    EL_CC_TAB = 11,
    EL_CC_LF = 12,
    EL_CC_CR = 13,
    EL_CC_QUOTE = 14, /* ' */
    EL_CC_SLASH = 15,
    EL_CC_ASCII_PUNCTUATION = 16,
    EL_CC_ASCII_SYMBOL = 17, /* $ + < = > ^ | ~ */
    EL_CC_BACKTICK = 18,
    /* a byte inside a code point: never the first */
    EL_CC_INNER = 31
} el_char_class;

#define EL_CC_MASK 31u       /* of a byte that el_classify wrote */
#define EL_PIECE_START 0x80u /* set by the pre-tokenizer on the first byte of each piece */

extern const uint8_t el_unicode_index[8704];
extern const uint8_t el_unicode_classes[];
extern const char el_unicode_version[];

/* cp >= 128 and at most 0x10FFFF */
static inline uint8_t el_unicode_class(uint32_t cp)
{
    uint32_t at = (uint32_t)el_unicode_index[cp >> 7] << 7 | (cp & 127);
    return el_unicode_classes[at >> 1] >> (at & 1) * 4 & 15;
}

uint8_t el_class_of(uint32_t cp); /* at most 0x10FFFF */

/* Writes the class of each code point at its first byte and EL_CC_INNER at the others. A byte that is not UTF-8
 * counts as a code point of its own and as a symbol, like U+FFFD. */
void el_classify(const char *text, size_t n, uint8_t *classes);

#endif
