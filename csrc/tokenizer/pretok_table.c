/* pretok_table.c - the regular expressions of the pre-tokenizers, one table each, and the names files give them.
 * The expressions are those of the models' tokenizer.json as llama.cpp applies them (llama-vocab.cpp), because files
 * and expected tokens come from there. So \p{Lu} and \p{Ll} tell case apart only in ASCII, and each table says what
 * it stands for in the comment above. */
#include "pretok.h"

#include <string.h>

#include "utf8.h"

#define BIT(c) (1u << (c))
#define LETTER (BIT(EL_CC_LETTER) | BIT(EL_CC_LOWER) | BIT(EL_CC_UPPER))
#define UPPER (BIT(EL_CC_LETTER) | BIT(EL_CC_UPPER)) /* a letter that is not a-z */
#define LOWER (BIT(EL_CC_LETTER) | BIT(EL_CC_LOWER)) /* a letter that is not A-Z */
#define MARK BIT(EL_CC_MARK)
#define NUMBER (BIT(EL_CC_NUMBER) | BIT(EL_CC_DIGIT))
#define ASCII_PUNCT (BIT(EL_CC_QUOTE) | BIT(EL_CC_SLASH) | BIT(EL_CC_ASCII_PUNCTUATION))
#define ASCII_OTHER (ASCII_PUNCT | BIT(EL_CC_ASCII_SYMBOL) | BIT(EL_CC_BACKTICK)) /* !-/ :-@ [-` {-~ */
#define PUNCT (BIT(EL_CC_PUNCTUATION) | ASCII_PUNCT)
#define SYMBOL (BIT(EL_CC_SYMBOL) | BIT(EL_CC_ASCII_SYMBOL) | BIT(EL_CC_BACKTICK))
#define BLANK BIT(EL_CC_BLANK)
#define NEWLINE (BIT(EL_CC_LF) | BIT(EL_CC_CR))
#define SPACE (BIT(EL_CC_SPACE) | BLANK | BIT(EL_CC_TAB) | NEWLINE)
#define ANY (BIT(EL_CC_INNER) - 1)

#define SET(classes, min, max)                                                                                         \
    {                                                                                                                  \
        EL_ATOM_SET, 0, min, max, classes, NULL                                                                        \
    }
#define IN(ranges, min, max)                                                                                           \
    {                                                                                                                  \
        EL_ATOM_SET, 0, min, max, 0, &(ranges)                                                                         \
    }
#define LESS(classes, ranges, min, max)                                                                                \
    {                                                                                                                  \
        EL_ATOM_SET, 1, min, max, classes, &(ranges)                                                                   \
    }
#define OPT(classes) SET(classes, 0, 1)
#define SOME(classes) SET(classes, 1, EL_MANY)
#define MAYBE(classes) SET(classes, 0, EL_MANY)
#define SHORT_L                                                                                                        \
    {                                                                                                                  \
        EL_ATOM_CONTRACTION_L, 0, 1, 1, 0, NULL                                                                        \
    }
#define SHORT                                                                                                          \
    {                                                                                                                  \
        EL_ATOM_CONTRACTION, 0, 1, 1, 0, NULL                                                                          \
    }
#define OPT_SHORT                                                                                                      \
    {                                                                                                                  \
        EL_ATOM_CONTRACTION, 0, 0, 1, 0, NULL                                                                          \
    }
#define SPACED                                                                                                         \
    {                                                                                                                  \
        EL_ATOM_SPACED, 0, 1, 1, 0, NULL                                                                               \
    }
#define UNLESS_NEXT(classes)                                                                                           \
    {                                                                                                                  \
        EL_ATOM_NOT_BEFORE, 0, 0, 0, classes, NULL                                                                     \
    }
#define OR                                                                                                             \
    {                                                                                                                  \
        EL_ATOM_OR, 0, 0, 0, 0, NULL                                                                                   \
    }
#define END                                                                                                            \
    {                                                                                                                  \
        EL_ATOM_END, 0, 0, 0, 0, NULL                                                                                  \
    }

#define RANGES(name, ...)                                                                                              \
    static const uint32_t name##_pairs[][2] = {__VA_ARGS__};                                                           \
    static const el_ranges name = {name##_pairs, (int)EL_COUNT(name##_pairs)}
#define REGEX(name, ...)                                                                                               \
    static const el_atom name##_atoms[] = {__VA_ARGS__, END};                                                          \
    static const el_pass name = {EL_PASS_REGEX, name##_atoms}

/* ---- explicit ranges ------------------------------------------------------------------ */

/* Latin, Greek, Cyrillic, Georgian, Cherokee letters and their extensions */
RANGES(deepseek_letters, {0x41, 0x5A}, {0x61, 0x7A}, {0xB5, 0xB5}, {0xC0, 0xD6}, {0xD8, 0xF6}, {0xF8, 0x1BA},
       {0x1BC, 0x1BF}, {0x1C4, 0x293}, {0x295, 0x2AF}, {0x370, 0x373}, {0x376, 0x377}, {0x37B, 0x37D}, {0x37F, 0x37F},
       {0x386, 0x386}, {0x388, 0x38A}, {0x38C, 0x38C}, {0x38E, 0x3A1}, {0x3A3, 0x3F5}, {0x3F7, 0x481}, {0x48A, 0x52F},
       {0x531, 0x556}, {0x10A0, 0x10C5}, {0x13A0, 0x13F5}, {0x13F8, 0x13FD}, {0x1C90, 0x1CBA}, {0x1CBD, 0x1CBF},
       {0x1D00, 0x1D2B}, {0x1D6B, 0x1D77}, {0x1D79, 0x1D9A}, {0x1E00, 0x1F15}, {0x1F18, 0x1F1D}, {0x1F20, 0x1F45},
       {0x1F48, 0x1F4D}, {0x1F50, 0x1F57}, {0x1F59, 0x1F59}, {0x1F5B, 0x1F5B}, {0x1F5D, 0x1F5D}, {0x1F5F, 0x1F7D},
       {0x1F80, 0x1FB4}, {0x1FB6, 0x1FBC}, {0x1FBE, 0x1FBE}, {0x1FC2, 0x1FC4}, {0x1FC6, 0x1FCC}, {0x1FD0, 0x1FD3},
       {0x1FD6, 0x1FDB}, {0x1FE0, 0x1FEC}, {0x1FF2, 0x1FF4}, {0x1FF6, 0x1FFC}, {0x2102, 0x2102}, {0x2107, 0x2107},
       {0x210A, 0x2113}, {0x2115, 0x2115}, {0x2119, 0x211D}, {0x2124, 0x2124}, {0x2126, 0x2126}, {0x2128, 0x2128},
       {0x212A, 0x212D}, {0x212F, 0x2134}, {0x2139, 0x2139}, {0x213C, 0x213F}, {0x2145, 0x2149}, {0x214E, 0x214E},
       {0x2183, 0x2184}, {0x2C00, 0x2C7B}, {0x2C7E, 0x2CE4}, {0x2CEB, 0x2CEE}, {0x2CF2, 0x2CF3}, {0xA640, 0xA66D},
       {0xA680, 0xA69B}, {0xA722, 0xA76F}, {0xA771, 0xA787}, {0xA78B, 0xA78E}, {0xAB70, 0xABBF}, {0xFB00, 0xFB06},
       {0xFB13, 0xFB17}, {0xFF21, 0xFF3A}, {0xFF41, 0xFF5A}, {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB},
       {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943});
RANGES(deepseek_punctuation, {0x21, 0x2F}, {0x3A, 0x7E}, {0x2018, 0x201F}, {0x3000, 0x3002}, {0xFF01, 0xFF0F},
       {0xFF1A, 0xFF5E});
RANGES(deepseek_cjk, {0x800, 0x9FA5}, {0xAC00, 0xD7FF});
RANGES(cjk_kana, {0x3040, 0x30FF}, {0x4E00, 0x9FA5});
RANGES(youtu_hangul, {0x3131, 0x318E}, {0xAC00, 0xD7A3});
RANGES(youtu_punctuation, {0x2014, 0x2014}, {0x2018, 0x2019}, {0x201C, 0x201D}, {0x2026, 0x2026}, {0x3001, 0x303F},
       {0xFE30, 0xFE4F}, {0xFF01, 0xFF01}, {0xFF0C, 0xFF0C}, {0xFF1A, 0xFF1B});
RANGES(youtu_bopomofo, {0x3105, 0x312F});
RANGES(afmoe_asian, {0xE40, 0xEFF}, {0x1000, 0x109F}, {0x1100, 0x11FF}, {0x1780, 0x17FF}, {0x2F00, 0x2FDF},
       {0x3040, 0x30FF}, {0x3400, 0x4DBF}, {0x4E00, 0xFAFF}, {0xFF65, 0xFF9F});
/* ! ( ) , . ? | and stops of Arabic, Urdu, Hindi, Chinese */
RANGES(bloom_stops, {0x21, 0x21}, {0x28, 0x29}, {0x2C, 0x2C}, {0x2E, 0x2E}, {0x3F, 0x3F}, {0x7C, 0x7C}, {0x60C, 0x60C},
       {0x6D4, 0x6D4}, {0x964, 0x964}, {0x2026, 0x2026}, {0x3001, 0x3002}, {0xFF0C, 0xFF0C});
RANGES(han, {0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0xF900, 0xFAFF}, {0x20000, 0x2A6DF}, {0x2A700, 0x2EBEF},
       {0x2F800, 0x2FA1F});

/* ---- building blocks ------------------------------------------------------------------ */

/* \s+(?!\S)|\s+ */
#define SPACES_TAIL SOME(SPACE), UNLESS_NEXT(ANY & ~SPACE), OR, SOME(SPACE)
/* \s*[\r\n]+|\s+(?!\S)|\s+ */
#define LINES_TAIL MAYBE(SPACE), SOME(NEWLINE), OR, SPACES_TAIL
/* [^\r\n\p{L}\p{N}]?\p{L}+ */
#define WORD OPT(ANY & ~(NEWLINE | LETTER | NUMBER)), SOME(LETTER)
/* the same with marks in the word */
#define WORD_M OPT(ANY & ~(NEWLINE | LETTER | NUMBER)), SOME(LETTER | MARK)
/* ?[^\s\p{L}\p{N}]+[\r\n]* */
#define SIGNS OPT(BLANK), SOME(ANY & ~(SPACE | LETTER | NUMBER)), MAYBE(NEWLINE)
/* ?[^\s\p{L}\p{N}]+[\r\n/]* */
#define SIGNS_SLASH OPT(BLANK), SOME(ANY & ~(SPACE | LETTER | NUMBER)), MAYBE(NEWLINE | BIT(EL_CC_SLASH))
/* [^\r\n\p{L}\p{N}]? then capitals then small letters: "[U]*[L]+" or "[U]+[L]*", then what `end` adds */
#define CASED(upper, lower, ...)                                                                                       \
    OPT(ANY & ~(NEWLINE | LETTER | NUMBER)), MAYBE(upper), SOME(lower) __VA_ARGS__, OR,                                \
        OPT(ANY & ~(NEWLINE | LETTER | NUMBER)), SOME(upper), MAYBE(lower) __VA_ARGS__
#define COMMA_OPT_SHORT , OPT_SHORT

/* ---- expressions ---------------------------------------------------------------------- */

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
REGEX(gpt2, SHORT_L, OR, OPT(BLANK), SOME(LETTER), OR, OPT(BLANK), SOME(NUMBER), OR, OPT(BLANK),
      SOME(ANY & ~(SPACE | LETTER | NUMBER)), OR, SPACES_TAIL);
/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|WORD|\p{N}{1,3}|SIGNS|\s*[\r\n]+|\s+(?!\S)|\s+ */
REGEX(llama3, SHORT, OR, WORD, OR, SET(NUMBER, 1, 3), OR, SIGNS, OR, LINES_TAIL);
REGEX(qwen2, SHORT, OR, WORD, OR, SET(NUMBER, 1, 1), OR, SIGNS, OR, LINES_TAIL);
REGEX(minicpm5, SHORT, OR, WORD, OR, SOME(NUMBER), OR, SIGNS, OR, LINES_TAIL);
REGEX(ufakzeka, WORD, OR, SET(NUMBER, 1, 1), OR, SIGNS, OR, LINES_TAIL);
/* qwen2 with marks as letters */
REGEX(qwen35, SHORT, OR, WORD_M, OR, SET(NUMBER, 1, 1), OR, OPT(BLANK), SOME(ANY & ~(SPACE | LETTER | MARK | NUMBER)),
      MAYBE(NEWLINE), OR, LINES_TAIL);
/* llama3 with white space in powers of two */
REGEX(jais2, SHORT, OR, WORD, OR, SET(NUMBER, 1, 3), OR, SIGNS, OR, MAYBE(SPACE), SOME(NEWLINE), OR,
      SET(SPACE, 512, 512), UNLESS_NEXT(ANY & ~SPACE), OR, SET(SPACE, 256, 256), UNLESS_NEXT(ANY & ~SPACE), OR,
      SET(SPACE, 128, 128), UNLESS_NEXT(ANY & ~SPACE), OR, SET(SPACE, 64, 64), UNLESS_NEXT(ANY & ~SPACE), OR,
      SET(SPACE, 32, 32), UNLESS_NEXT(ANY & ~SPACE), OR, SET(SPACE, 16, 16), UNLESS_NEXT(ANY & ~SPACE), OR,
      SET(SPACE, 8, 8), UNLESS_NEXT(ANY & ~SPACE), OR, SET(SPACE, 4, 4), UNLESS_NEXT(ANY & ~SPACE), OR,
      SET(SPACE, 1, 2), UNLESS_NEXT(ANY & ~SPACE), OR, SET(SPACE, 1, 1));
/* signs without the newlines after them and never newlines inside */
REGEX(seed_coder, SHORT, OR, WORD, OR, SET(NUMBER, 1, 1), OR, OPT(BLANK), SOME(ANY & ~(SPACE | LETTER | NUMBER)), OR,
      LINES_TAIL);
/* words may hold single blanks: (?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+ */
REGEX(exaone_moe, SHORT, OR, OPT(ANY & ~(NEWLINE | LETTER | NUMBER)), SPACED, OR, SET(NUMBER, 1, 1), OR, OPT(BLANK),
      SOME(ANY & ~(SPACE | LETTER | NUMBER)), OPT(NEWLINE | BIT(EL_CC_SLASH)), OR, LINES_TAIL);
/* [^\r\n\p{L}\p{N}]?[\p{Lu}..]*[\p{Ll}..]+|[^\r\n\p{L}\p{N}]?[\p{Lu}..]+[\p{Ll}..]*|\p{N}|SIGNS_SLASH|... */
REGEX(tekken, CASED(UPPER, LOWER, ), OR, SET(NUMBER, 1, 1), OR, SIGNS_SLASH, OR, LINES_TAIL);
/* tekken with (?i:'s|'t|'re|'ve|'m|'ll|'d)? after the word and \p{N}{1,3} */
REGEX(gpt4o, CASED(UPPER, LOWER, COMMA_OPT_SHORT), OR, SET(NUMBER, 1, 3), OR, SIGNS_SLASH, OR, LINES_TAIL);
REGEX(granite_multi, CASED(UPPER | MARK, LOWER | MARK, COMMA_OPT_SHORT), OR, SET(NUMBER, 1, 3), OR, SIGNS_SLASH, OR,
      LINES_TAIL);
/* the same without telling case apart */
REGEX(aya, WORD_M, OPT_SHORT, OR, SET(NUMBER, 1, 3), OR, SIGNS_SLASH, OR, LINES_TAIL);
REGEX(youtu, WORD_M, OPT_SHORT, OR, SET(NUMBER, 1, 1), OR, SIGNS_SLASH, OR, LINES_TAIL);
REGEX(youtu_scripts, IN(youtu_hangul, 1, EL_MANY), OR, IN(youtu_punctuation, 1, EL_MANY), OR,
      IN(youtu_bopomofo, 1, EL_MANY), OR, IN(cjk_kana, 1, EL_MANY));
/* [\p{Han}]+|WORD without Han, then a contraction|\p{N}{1,3}|SIGNS|... */
REGEX(kimi, IN(han, 1, EL_MANY), OR, OPT(ANY & ~(NEWLINE | LETTER | NUMBER)), LESS(LETTER, han, 1, EL_MANY), OPT_SHORT,
      OR, SET(NUMBER, 1, 3), OR, SIGNS, OR, LINES_TAIL);

/* [!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
#define DEEPSEEK_WORD                                                                                                  \
    SET(ASCII_OTHER, 1, 1), SOME(BIT(EL_CC_LOWER) | BIT(EL_CC_UPPER)), OR,                                             \
        OPT(ANY & ~(NEWLINE | LETTER | PUNCT | SYMBOL)), SOME(LETTER | MARK)
REGEX(deepseek3, DEEPSEEK_WORD, OR, OPT(BLANK), SOME(PUNCT | SYMBOL), MAYBE(NEWLINE), OR, LINES_TAIL);
REGEX(spark, DEEPSEEK_WORD, OR, OPT(BLANK), SOME(PUNCT | SYMBOL), OR, SET(NEWLINE, 1, 1), OR, SPACES_TAIL);

REGEX(each_newline, SET(NEWLINE, 1, 1));
REGEX(each_number, SET(NUMBER, 1, 1));
REGEX(three_numbers, SET(NUMBER, 1, 3));
REGEX(all_numbers, SOME(NUMBER));
REGEX(three_digits, SET(BIT(EL_CC_DIGIT), 3, 3)); /* [0-9][0-9][0-9] */
REGEX(falcon_signs, SOME(PUNCT | BIT(EL_CC_ASCII_SYMBOL) | BIT(EL_CC_BACKTICK)));
REGEX(default_signs, SOME(PUNCT | BIT(EL_CC_ASCII_SYMBOL)));
REGEX(cjk, IN(cjk_kana, 1, EL_MANY));
REGEX(asian, IN(afmoe_asian, 1, EL_MANY));
REGEX(deepseek_asian, IN(deepseek_cjk, 1, EL_MANY));
REGEX(deepseek_words, OPT(SPACE), IN(deepseek_letters, 1, EL_MANY));
REGEX(deepseek_signs, OPT(SPACE), IN(deepseek_punctuation, 1, EL_MANY));
REGEX(coder_words, OPT(SPACE), SOME(LETTER));
REGEX(coder_signs, OPT(SPACE), SOME(PUNCT));
REGEX(bloom_words, OPT(BLANK), LESS(ANY & ~SPACE, bloom_stops, 1, EL_MANY)); /* " ?[^(\s|.,!?...)]+" */
REGEX(visible, SOME(ANY & ~SPACE));                                          /* \S+ */
REGEX(line_runs, SOME(ANY & ~BIT(EL_CC_LF)), OR, SOME(BIT(EL_CC_LF)));       /* [^\n]+|[\n]+ */
REGEX(chameleon_blanks, SET(BIT(EL_CC_TAB) | BIT(EL_CC_LF), 1, 1), OR, SET(BLANK, 4, 4), OR, SET(BLANK, 2, 2));
REGEX(chameleon_signs, SET(PUNCT | ASCII_OTHER, 1, 1));

static const el_pass digit_groups = {EL_PASS_DIGIT_GROUPS, NULL};
static const el_pass digit_triples = {EL_PASS_DIGIT_TRIPLES, NULL};
static const el_pass end_space = {EL_PASS_END_SPACE, NULL};

/* ---- pre-tokenizers ------------------------------------------------------------------- */

#define PASSES(name, ...) static const el_pass *const pre_##name[] = {__VA_ARGS__, NULL}
PASSES(default, &default_signs, &gpt2, &all_numbers, &three_digits);
PASSES(gpt2, &gpt2);
PASSES(starcoder, &each_number, &gpt2);
PASSES(falcon, &falcon_signs, &gpt2, &three_digits);
PASSES(llama3, &llama3);
PASSES(qwen2, &qwen2);
PASSES(qwen35, &qwen35);
PASSES(minicpm5, &three_numbers, &minicpm5);
PASSES(ufakzeka, &ufakzeka);
PASSES(jais2, &jais2);
PASSES(seed_coder, &seed_coder);
PASSES(exaone_moe, &exaone_moe);
PASSES(laguna, &line_runs, &qwen2);
PASSES(deepseek_llm, &each_newline, &deepseek_words, &deepseek_signs, &end_space, &deepseek_asian, &all_numbers);
PASSES(deepseek_coder, &each_newline, &coder_words, &coder_signs, &deepseek_asian, &each_number);
PASSES(deepseek3, &three_numbers, &cjk, &deepseek3);
PASSES(spark, &three_numbers, &cjk, &spark, &each_number);
PASSES(afmoe, &digit_groups, &asian, &deepseek3);
PASSES(youtu, &youtu_scripts, &youtu);
PASSES(aya, &digit_groups, &aya);
PASSES(tekken, &tekken);
PASSES(gpt4o, &gpt4o);
PASSES(granite_multi, &granite_multi);
PASSES(kimi, &kimi);
PASSES(bloom, &bloom_words);
PASSES(viking, &bloom_words, &each_number);
PASSES(superbpe, &all_numbers, &digit_triples);
/* without the expressions for sentinels and images: those are special tokens, cut out before */
PASSES(chameleon, &chameleon_blanks, &each_number, &chameleon_signs, &gpt2);
PASSES(lines, &line_runs);
PASSES(visible, &visible);

enum { WHOLE = EL_PRE_WHOLE_WORDS, BOS = EL_PRE_BOS, CLEAN = EL_PRE_CLEAN, RAW = EL_PRE_RAW };

static const struct {
    const char *name;
    el_pretok pre;
} known[] = {
    /* A file without a name was converted before names existed: it gets the cuts that fit most models of that time. */
    {"default", {pre_default, CLEAN}},
    {"gpt-2", {pre_gpt2, CLEAN}},
    {"phi-2", {pre_gpt2, CLEAN}},
    {"mpt", {pre_gpt2, CLEAN}},
    {"olmo", {pre_gpt2, CLEAN}},
    {"jais", {pre_gpt2, CLEAN}},
    {"trillion", {pre_gpt2, 0}},
    {"granite-docling", {pre_gpt2, 0}},
    {"gigachat", {pre_gpt2, CLEAN}},
    {"a.x-4.0", {pre_gpt2, CLEAN}},
    {"mellum", {pre_gpt2, CLEAN}},
    {"exaone4", {pre_gpt2, CLEAN}},
    {"modern-bert", {pre_gpt2, CLEAN}},
    {"jina-es", {pre_gpt2, CLEAN}},
    {"jina-de", {pre_gpt2, CLEAN}},
    {"jina-v2-es", {pre_gpt2, CLEAN | EL_PRE_MASK_LSTRIP}},
    {"jina-v2-de", {pre_gpt2, CLEAN | EL_PRE_MASK_LSTRIP}},
    {"jina-v1-en", {pre_gpt2, CLEAN | EL_PRE_SEP}},
    {"jina-v2-code", {pre_gpt2, CLEAN | EL_PRE_SEP | EL_PRE_MASK_LSTRIP}},
    {"roberta-bpe", {pre_gpt2, CLEAN | EL_PRE_SEP}},
    {"starcoder", {pre_starcoder, CLEAN}},
    {"refact", {pre_starcoder, CLEAN}},
    {"command-r", {pre_starcoder, 0}},
    {"smollm", {pre_starcoder, 0}},
    {"codeshell", {pre_starcoder, CLEAN}},
    {"exaone", {pre_starcoder, CLEAN}},
    {"minerva-7b", {pre_starcoder, CLEAN}},
    {"mellum2", {pre_starcoder, CLEAN}},
    {"falcon", {pre_falcon, CLEAN}},
    {"llama3", {pre_llama3, CLEAN | WHOLE | BOS}},
    {"llama-v3", {pre_llama3, CLEAN | WHOLE | BOS}},
    {"llama-bpe", {pre_llama3, CLEAN | WHOLE | BOS}},
    {"falcon3", {pre_llama3, CLEAN | WHOLE | BOS}},
    {"falcon-h1", {pre_llama3, CLEAN | WHOLE | BOS}},
    {"pixtral", {pre_llama3, CLEAN | WHOLE | BOS}},
    {"midm-2.0", {pre_llama3, CLEAN | WHOLE | BOS}},
    {"lfm2", {pre_llama3, CLEAN | WHOLE | BOS}},
    {"jina-v5-nano", {pre_llama3, CLEAN | WHOLE | BOS}},
    {"dbrx", {pre_llama3, CLEAN}},
    {"smaug-bpe", {pre_llama3, CLEAN}},
    {"chatglm-bpe", {pre_llama3, CLEAN}},
    {"glm4", {pre_llama3, CLEAN | WHOLE}},
    {"glm5", {pre_llama3, CLEAN | WHOLE}},
    {"minicpm5", {pre_minicpm5, CLEAN | WHOLE}},
    {"jais-2", {pre_jais2, CLEAN}},
    {"qwen2", {pre_qwen2, 0}},
    {"deepseek-r1-qwen", {pre_qwen2, 0}},
    {"kormo", {pre_qwen2, 0}},
    {"f2llmv2", {pre_qwen2, 0}},
    {"stablelm2", {pre_qwen2, CLEAN}},
    {"megrez", {pre_qwen2, CLEAN}},
    {"hunyuan", {pre_qwen2, 0}},
    {"solar-open", {pre_qwen2, 0}},
    {"grok-2", {pre_qwen2, 0}},
    {"bailingmoe", {pre_qwen2, 0}},
    {"bailingmoe2", {pre_qwen2, 0}},
    {"llada-moe", {pre_qwen2, 0}},
    {"qwen35", {pre_qwen35, 0}},
    {"ufakzeka", {pre_ufakzeka, 0}},
    {"seed-coder", {pre_seed_coder, 0}},
    {"exaone-moe", {pre_exaone_moe, CLEAN}},
    {"laguna", {pre_laguna, 0}},
    {"deepseek-llm", {pre_deepseek_llm, 0}},
    {"deepseek-coder", {pre_deepseek_coder, 0}},
    {"deepseek-v3", {pre_deepseek3, 0}},
    {"hunyuan-dense", {pre_deepseek3, 0}},
    {"joyai-llm", {pre_deepseek3, 0}},
    {"hy_v4", {pre_deepseek3, 0}},
    {"spark2_5", {pre_spark, 0}},
    {"afmoe", {pre_afmoe, 0}},
    {"youtu", {pre_youtu, WHOLE}},
    {"tiny_aya", {pre_aya, 0}},
    {"cohere2moe", {pre_aya, 0}},
    {"tekken", {pre_tekken, WHOLE | BOS}},
    {"gpt-4o", {pre_gpt4o, 0}},
    {"llama4", {pre_gpt4o, 0}},
    {"kanana2", {pre_gpt4o, 0}},
    {"talkie", {pre_gpt4o, 0}},
    {"minimax-m2", {pre_gpt4o, 0}},
    {"granite-embed-multi-97m", {pre_granite_multi, WHOLE}},
    {"kimi-k2", {pre_kimi, 0}},
    {"poro-chat", {pre_bloom, 0}},
    {"bloom", {pre_bloom, CLEAN}},
    {"gpt3-finnish", {pre_bloom, CLEAN}},
    {"viking", {pre_viking, 0}},
    {"superbpe", {pre_superbpe, 0}},
    {"chameleon", {pre_chameleon, BOS}},
    {"gemma4", {pre_lines, CLEAN | RAW | EL_PRE_NEWLINES | EL_PRE_BOS_ALWAYS}},
    {"granite-embed-multi-311m", {pre_lines, CLEAN | RAW | EL_PRE_NEWLINES | EL_PRE_BOS_ALWAYS}},
    {"sarvam-moe", {pre_lines, RAW}},
    {"whitespace", {pre_visible, CLEAN | EL_PRE_PLAIN}},
};

/* Edits (insert, delete, replace) from a to b; both shorter than 64. */
static unsigned distance(el_str a, el_str b)
{
    unsigned row[64];

    for (size_t j = 0; j <= b.n; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a.n; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b.n; j++) {
            unsigned replaced = diagonal + (a.data[i - 1] != b.data[j - 1]);

            diagonal = row[j];
            row[j] = EL_MIN(replaced, EL_MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b.n];
}

static const char *nearest(el_str name)
{
    const char *best = known[0].name;
    unsigned least = UINT32_MAX;

    name.n = EL_MIN(name.n, 63);
    for (size_t i = 0; i < EL_COUNT(known); i++) {
        unsigned d = distance(name, (el_str){known[i].name, strlen(known[i].name)});

        if (d < least) {
            least = d;
            best = known[i].name;
        }
    }
    return best;
}

edgellm_status el_pretok_find(const el_pretok **out, el_str name)
{
    char shown[64];

    for (size_t i = 0; i < EL_COUNT(known); i++)
        if (el_str_eq(name, known[i].name) || (name.n == 0 && i == 0)) {
            *out = &known[i].pre;
            return EDGELLM_OK;
        }
    el_utf8_escape(shown, sizeof shown, name.data, name.n);
    return el_fail(EDGELLM_EUNSUPPORTED,
                   "tokenizer.ggml.pre is '%s', a pre-tokenizer this version does not know; the nearest of the %zu it "
                   "knows is '%s'",
                   shown, EL_COUNT(known), nearest(name));
}
