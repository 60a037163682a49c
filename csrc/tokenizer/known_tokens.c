/* known_tokens.c - tokens that files seldom declare but every user expects to work, by their spelling.
 * The lists are those llama.cpp has collected (llama-vocab.cpp); where it takes the first in hash order, the first of
 * the list counts here. A token found this way becomes a control token: text must not spell it. */
#include "tokenizer_impl.h"

#include <string.h>

#define LINE "\xE2\x96\x81"                                   /* U+2581, a blank */
#define DEEPSEEK(words) "<\xEF\xBD\x9C" words "\xEF\xBD\x9C>" /* with the wide bars U+FF5C */

enum { ENDS = 1 }; /* ends a generation */

static const struct {
    const char *piece;
    int8_t role; /* -1: none */
    uint8_t flags;
} known[] = {
    {"<|eot_id|>", EDGELLM_TOKEN_EOT, ENDS},
    {"<|im_end|>", EDGELLM_TOKEN_EOT, ENDS},
    {"<|end|>", EDGELLM_TOKEN_EOT, ENDS},
    {"<end_of_turn>", EDGELLM_TOKEN_EOT, ENDS},
    {"<|endoftext|>", EDGELLM_TOKEN_EOT, ENDS},
    {"<|end_of_text|>", EDGELLM_TOKEN_EOT, ENDS},
    {"<EOT>", EDGELLM_TOKEN_EOT, ENDS},
    {"_<EOT>", EDGELLM_TOKEN_EOT, ENDS},
    {"[EOT]", EDGELLM_TOKEN_EOT, ENDS},
    {DEEPSEEK("end" LINE "of" LINE "sentence"), EDGELLM_TOKEN_EOT, ENDS},
    {"<end_of_utterance>", EDGELLM_TOKEN_EOT, ENDS},
    {"<|eom_id|>", EDGELLM_TOKEN_EOM, ENDS},
    {"<|return|>", -1, ENDS},
    {"<|call|>", -1, ENDS},
    {"<|flush|>", -1, ENDS},
    {"<|calls|>", -1, ENDS},
    {"</s>", -1, ENDS},
    {"[EOS]", -1, ENDS},
    {"<eos>", -1, ENDS},
    {"<turn|>", -1, ENDS},
    {"<|tool_response>", -1, ENDS},
    {"[e~[", -1, ENDS},
    {"<|fim_prefix|>", EDGELLM_TOKEN_FIM_PRE, 0},
    {"<fim-prefix>", EDGELLM_TOKEN_FIM_PRE, 0},
    {"<fim_prefix>", EDGELLM_TOKEN_FIM_PRE, 0},
    {DEEPSEEK("fim" LINE "begin"), EDGELLM_TOKEN_FIM_PRE, 0},
    {"<PRE>", EDGELLM_TOKEN_FIM_PRE, 0},
    {LINE "<PRE>", EDGELLM_TOKEN_FIM_PRE, 0},
    {"<|code_prefix|>", EDGELLM_TOKEN_FIM_PRE, 0},
    {"<|prefix|>", EDGELLM_TOKEN_FIM_PRE, 0},
    {"<|fim_suffix|>", EDGELLM_TOKEN_FIM_SUF, 0},
    {"<fim-suffix>", EDGELLM_TOKEN_FIM_SUF, 0},
    {"<fim_suffix>", EDGELLM_TOKEN_FIM_SUF, 0},
    {DEEPSEEK("fim" LINE "hole"), EDGELLM_TOKEN_FIM_SUF, 0},
    {"<SUF>", EDGELLM_TOKEN_FIM_SUF, 0},
    {LINE "<SUF>", EDGELLM_TOKEN_FIM_SUF, 0},
    {"<|code_suffix|>", EDGELLM_TOKEN_FIM_SUF, 0},
    {"<|suffix|>", EDGELLM_TOKEN_FIM_SUF, 0},
    {"<|fim_middle|>", EDGELLM_TOKEN_FIM_MID, 0},
    {"<fim-middle>", EDGELLM_TOKEN_FIM_MID, 0},
    {"<fim_middle>", EDGELLM_TOKEN_FIM_MID, 0},
    {DEEPSEEK("fim" LINE "end"), EDGELLM_TOKEN_FIM_MID, 0},
    {"<MID>", EDGELLM_TOKEN_FIM_MID, 0},
    {LINE "<MID>", EDGELLM_TOKEN_FIM_MID, 0},
    {"<|code_middle|>", EDGELLM_TOKEN_FIM_MID, 0},
    {"<|middle|>", EDGELLM_TOKEN_FIM_MID, 0},
    /* The next three roles end a generation: a model that fills in the middle starts the next file with them. */
    {"<|fim_pad|>", EL_ROLE_FIM_PAD, 0},
    {"<fim-pad>", EL_ROLE_FIM_PAD, 0},
    {"<fim_pad>", EL_ROLE_FIM_PAD, 0},
    {"<PAD>", EL_ROLE_FIM_PAD, 0},
    {"[PAD]", EL_ROLE_FIM_PAD, 0},
    {"<|fim_repo|>", EL_ROLE_FIM_REPO, 0},
    {"<|repo_name|>", EL_ROLE_FIM_REPO, 0},
    {"<fim-repo>", EL_ROLE_FIM_REPO, 0},
    {"<REPO>", EL_ROLE_FIM_REPO, 0},
    {"<reponame>", EL_ROLE_FIM_REPO, 0},
    {"<|file_sep|>", EL_ROLE_FIM_FILE, 0},
};

static int32_t find(const el_tokenizer *t, const char *piece) { return el_find_any(t, piece, strlen(piece)); }

static void set_type(el_tokenizer *t, int32_t id, int type)
{
    t->traits[id] = (uint8_t)((t->traits[id] & ~EL_TRAIT_TYPE) | type);
}

static edgellm_status make_control(el_tokenizer *t, int32_t id)
{
    int type = el_type_of(t, id);

    if (type == EL_TOKEN_CONTROL)
        return EDGELLM_OK;
    el_piece_table_remove(&t->pieces, t->tokens, (uint32_t)id);
    set_type(t, id, EL_TOKEN_CONTROL);
    if (type == EL_TOKEN_USER_DEFINED)
        el_specials_demote(&t->specials, t->tokens[id]);
    return el_specials_add(&t->specials, t->tokens[id], id, false);
}

static void mark_end(el_tokenizer *t, int32_t id, bool ends)
{
    if (id >= 0)
        t->traits[id] = (uint8_t)(ends ? t->traits[id] | EL_TRAIT_EOG : t->traits[id] & ~EL_TRAIT_EOG);
}

/* gpt-oss and Solar end messages inside an answer with <|end|>. */
static void spare_message_end(el_tokenizer *t)
{
    bool calls = find(t, "<|call|>") >= 0 || find(t, "<|calls|>") >= 0;

    if (calls && (find(t, "<|return|>") >= 0 || find(t, "<|flush|>") >= 0))
        mark_end(t, find(t, "<|end|>"), false);
}

static bool contains(el_str text, const char *word)
{
    size_t n = strlen(word);

    for (size_t i = 0; i + n <= text.n; i++) {
        size_t k = 0;

        while (k < n && (text.data[i + k] | ((uint8_t)(text.data[i + k] - 'A') < 26 ? 0x20 : 0)) == word[k])
            k++;
        if (k == n)
            return true;
    }
    return false;
}

static void set_strip(el_tokenizer *t, const char *piece, uint8_t trait, bool on)
{
    int32_t id = find(t, piece);

    if (id >= 0) {
        t->traits[id] = (uint8_t)(on ? t->traits[id] | trait : t->traits[id] & ~trait);
        t->has_strip |= on;
    }
}

/* Phi-3's special tokens swallow the white space after them; nothing but the name tells. */
static void strip_rules(el_tokenizer *t, const el_vocab_data *data)
{
    el_str model_name = data->name;
    bool by_arch = el_str_eq(data->arch, "nomic-bert-moe") || el_str_eq(data->arch, "jina-bert-v3");

    if (by_arch || (t->pre && t->pre->flags & EL_PRE_MASK_LSTRIP)) {
        set_strip(t, "<mask>", EL_TRAIT_LSTRIP, true);
    } else if (contains(model_name, "phi-3") || contains(model_name, "phi3")) {
        for (size_t id = 0; id < t->n_tokens; id++) {
            int type = el_type_of(t, (int32_t)id);

            if (type == EL_TOKEN_CONTROL || type == EL_TOKEN_USER_DEFINED || type == EL_TOKEN_UNKNOWN)
                t->traits[id] |= EL_TRAIT_RSTRIP;
        }
        set_strip(t, "</s>", EL_TRAIT_RSTRIP, true);
        set_strip(t, "<unk>", EL_TRAIT_RSTRIP, false);
        set_strip(t, "<s>", EL_TRAIT_RSTRIP, false);
        set_strip(t, "<|endoftext|>", EL_TRAIT_RSTRIP, false);
        t->has_strip = true;
    } else if (contains(model_name, "modern-bert")) {
        set_strip(t, "[MASK]", EL_TRAIT_LSTRIP, true);
    }
}

edgellm_status el_known_tokens(el_tokenizer *t, const el_vocab_data *data)
{
    /* Gemma 4 and PLaMo: "</s>" ends struck-out text there */
    bool html = find(t, "<|tool_response>") >= 0 || find(t, "<|plamo:eos|>") >= 0;

    for (size_t i = 0; i < EL_COUNT(known); i++) {
        int32_t id = html && strcmp(known[i].piece, "</s>") == 0 ? -1 : find(t, known[i].piece);
        bool takes_role = id >= 0 && known[i].role >= 0 && t->special[known[i].role] < 0;

        if (takes_role)
            t->special[known[i].role] = id;
        if (id >= 0 && (takes_role || known[i].flags & ENDS)) {
            edgellm_status status = make_control(t, id);

            if (status != EDGELLM_OK)
                return status;
        }
        if (known[i].flags & ENDS)
            mark_end(t, id, true);
    }
    mark_end(t, t->special[EL_ROLE_FIM_PAD], true);
    mark_end(t, t->special[EL_ROLE_FIM_REPO], true);
    mark_end(t, t->special[EL_ROLE_FIM_FILE], true);
    mark_end(t, t->special[EDGELLM_TOKEN_EOS], true);
    mark_end(t, t->special[EDGELLM_TOKEN_EOT], true);
    mark_end(t, t->special[EDGELLM_TOKEN_EOM], true);
    spare_message_end(t);
    strip_rules(t, data);
    return EDGELLM_OK;
}
