/* edgellm.h - language models from GGUF files, inside your process.
 *
 * Conventions
 *   Sizes are bytes unless the name says otherwise (n_threads, n_tokens).
 *   Every function that returns edgellm_status leaves one line of text behind on failure:
 *   edgellm_last_error(). Out parameters are NULL or 0 after a failure.
 *   Text is UTF-8 and passed with its length; paths are NUL-terminated UTF-8.
 *   Threads may share a model and a vocabulary. One thread at a time may use an engine,
 *   except for edgellm_engine_cancel, which any thread may call at any time.
 *   No function prints, aborts, or touches the network.
 *
 * The part between the two cdef lines is also what the Python binding is generated from:
 * keep it plain C99 without preprocessor lines.
 */
#ifndef EDGELLM_H
#define EDGELLM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32) && defined(EDGELLM_BUILD)
#define EDGELLM_API __declspec(dllexport)
#elif defined(_WIN32)
#define EDGELLM_API __declspec(dllimport)
#elif defined(__GNUC__)
#define EDGELLM_API __attribute__((visibility("default")))
#else
#define EDGELLM_API
#endif

#define EDGELLM_VERSION "0.1.0" /* the only place that says so; compare with edgellm_version() */

/* cdef: begin */

/* ---- errors, version, log ------------------------------------------------------------- */

typedef enum edgellm_status { /* numbers are never changed or reused */
                              EDGELLM_OK = 0,
                              EDGELLM_AGAIN = 1,   /* not an error: the step has not finished, call again */
                              EDGELLM_EINVAL = -1, /* the caller broke a rule written here */
                              EDGELLM_ENOMEM = -2,
                              EDGELLM_EIO = -3,          /* the file could not be opened or read */
                              EDGELLM_EFORMAT = -4,      /* not GGUF, or damaged */
                              EDGELLM_EUNSUPPORTED = -5, /* sound file, feature we lack */
                              EDGELLM_EFULL = -6,        /* no free sequence or KV block: expected, try later */
                              EDGELLM_ECANCELLED = -7,   /* edgellm_engine_cancel was called */
                              EDGELLM_ECONTEXT = -8,     /* more tokens than the context holds */
                              EDGELLM_ENUMERIC = -9      /* the model produced NaN or infinity */
} edgellm_status;

/* One line on this thread's last failure; "" after a success; never NULL.
 * The library owns it; it lasts until this thread's next edgellm_ call. */
EDGELLM_API const char *edgellm_last_error(void);

/* "MAJOR.MINOR.PATCH" of the library. Static. */
EDGELLM_API const char *edgellm_version(void);

/* sizeof of a public struct by its name ("edgellm_item"), 0 for a name it does not know:
 * a binding compares these with its own idea of the layout when it loads. */
EDGELLM_API size_t edgellm_struct_size(const char *name);

/* Messages are kept in a small ring until taken (oldest dropped first). Levels: 0 none (the
 * default), 1 error, 2 warning, 3 info, 4 debug. Process-wide, any thread. */
EDGELLM_API void edgellm_log_set_level(int level);

/* Takes the oldest message: copies at most cap bytes (always NUL-terminated), sets *level.
 * Returns 1, or 0 when there was none. */
EDGELLM_API int edgellm_log_take(char *buf, size_t cap, int *level);

/* A JSON object: CPU brand, instruction sets found and used, cores, affinity, cgroup quota,
 * memory, default thread count. Like snprintf: returns the full length, writes at most cap. */
EDGELLM_API size_t edgellm_system_json(char *buf, size_t cap);

/* ---- vocabulary ----------------------------------------------------------------------- */

typedef struct edgellm_vocab edgellm_vocab; /* immutable once open */

/* Opens only the tokenizer of a GGUF file; the file may hold no tensors at all. */
EDGELLM_API edgellm_status edgellm_vocab_open(edgellm_vocab **out, const char *path_utf8);
EDGELLM_API void edgellm_vocab_free(edgellm_vocab *vocab); /* NULL is fine */

EDGELLM_API int32_t edgellm_vocab_size(const edgellm_vocab *vocab);

typedef enum edgellm_special { /* roles a vocabulary can give to a token */
                               EDGELLM_TOKEN_BOS = 0,
                               EDGELLM_TOKEN_EOS = 1,
                               EDGELLM_TOKEN_EOT = 2,
                               EDGELLM_TOKEN_UNK = 3,
                               EDGELLM_TOKEN_SEP = 4,
                               EDGELLM_TOKEN_PAD = 5,
                               EDGELLM_TOKEN_MASK = 6,
                               EDGELLM_TOKEN_EOM = 7,
                               EDGELLM_TOKEN_FIM_PRE = 8,
                               EDGELLM_TOKEN_FIM_SUF = 9,
                               EDGELLM_TOKEN_FIM_MID = 10
} edgellm_special;

/* The token with that role, or -1. */
EDGELLM_API int32_t edgellm_vocab_special(const edgellm_vocab *vocab, int role);
/* 1 if that token ends a generation, else 0 (also for ids outside the vocabulary). */
EDGELLM_API int edgellm_vocab_is_eog(const edgellm_vocab *vocab, int32_t token);
/* 1 if the token is a control token, 2 user-defined, 3 unknown, 4 unused, 5 byte; 0 normal; -1 no such id. */
EDGELLM_API int edgellm_vocab_kind(const edgellm_vocab *vocab, int32_t token);
/* 1 when the file asks for a BOS (role 0), EOS (role 1) or SEP (role 4) around a text. */
EDGELLM_API int edgellm_vocab_adds(const edgellm_vocab *vocab, int role);

/* Flags of edgellm_tokenize and edgellm_detokenize. */
typedef enum edgellm_text_flags {
    EDGELLM_ADD_SPECIAL = 1,   /* put BOS, EOS, SEP where the file asks for them */
    EDGELLM_PARSE_SPECIAL = 2, /* text that spells a control token becomes that token */
    EDGELLM_KEEP_SPECIAL = 4   /* detokenize: write control tokens out instead of dropping them */
} edgellm_text_flags;

/* Sets *n to the number of ids of the whole text and writes the first min(cap, *n) of them:
 * when *n > cap, call again with more room. Bytes that are not UTF-8 become what the
 * vocabulary has for them; no text fails. Errors: EINVAL (arguments), ENOMEM,
 * EUNSUPPORTED (the vocabulary has no text, like the "test" tokenizer). */
EDGELLM_API edgellm_status edgellm_tokenize(const edgellm_vocab *vocab, const char *text, size_t n_bytes,
                                            uint32_t flags, int32_t *ids, size_t cap, size_t *n);

/* The bytes of the ids, in the same manner. Errors: EINVAL (an id outside the vocabulary), EUNSUPPORTED. */
EDGELLM_API edgellm_status edgellm_detokenize(const edgellm_vocab *vocab, const int32_t *ids, size_t n_ids,
                                              uint32_t flags, char *buf, size_t cap, size_t *n_bytes);

/* The token as the file spells it, not NUL-terminated; the vocabulary owns it. Errors: EINVAL. */
EDGELLM_API edgellm_status edgellm_vocab_piece(const edgellm_vocab *vocab, int32_t token, const char **piece,
                                               size_t *n_bytes);

/* ---- model ---------------------------------------------------------------------------- */

typedef struct edgellm_model edgellm_model; /* mapped weights and vocabulary, immutable */

/* Maps a GGUF file (the first part of a split one). *out is the caller's, or NULL on failure.
 * Errors: all above but AGAIN, EFULL, ECANCELLED, ECONTEXT. */
EDGELLM_API edgellm_status edgellm_model_open(edgellm_model **out, const char *path_utf8);
EDGELLM_API void edgellm_model_free(edgellm_model *model); /* NULL is fine; free engines first */

typedef struct edgellm_model_info {
    uint32_t struct_size; /* set by the caller to sizeof(edgellm_model_info) */
    int32_t n_vocab;
    int32_t n_ctx_train; /* 0 when the file does not say */
    int32_t n_embd;
    int32_t n_layer;
    int32_t n_head; /* of the first layer */
    int32_t n_head_kv;
    int32_t n_expert;            /* 0: dense */
    uint64_t n_params;           /* elements of all tensors */
    uint64_t n_bytes;            /* of all tensors */
    uint64_t kv_bytes_per_token; /* with an f16 cache */
    int32_t gives_logits;        /* 0: an encoder, for embeddings alone */
    int32_t has_encoder;   /* 1: an encoder-decoder model: a source text is given first, see edgellm_item.encode */
    int32_t decoder_start; /* token that such a model's answer begins with */
    int32_t causal;        /* 0: every token sees the whole text, which is then read in one step */
    int32_t n_embd_out;    /* width of an embedding */
    int32_t n_classes;     /* scores of the classifier; 0: the model has none */
    int32_t pooling;       /* edgellm_pooling that the file names, or EDGELLM_POOLING_MODEL */
    char architecture[32]; /* general.architecture */
    char type[32];         /* commonest weight type by bytes: "Q4_K" */
} edgellm_model_info;
EDGELLM_API edgellm_status edgellm_model_get_info(const edgellm_model *model, edgellm_model_info *info);

/* The model's vocabulary; owned by the model, never freed by the caller. */
EDGELLM_API const edgellm_vocab *edgellm_model_vocab(const edgellm_model *model);

/* ---- adapters --------------------------------------------------------------------------- */

typedef struct edgellm_adapter edgellm_adapter; /* a LoRA of that model, mapped, immutable */

/* Maps a LoRA adapter (general.type "adapter"). *out is the caller's, or NULL on failure; the model must outlive it.
 * Errors: EINVAL (it is for another model), EIO, EFORMAT, EUNSUPPORTED, ENOMEM. */
EDGELLM_API edgellm_status edgellm_adapter_open(edgellm_adapter **out, const edgellm_model *model,
                                                const char *path_utf8);
EDGELLM_API void edgellm_adapter_free(edgellm_adapter *adapter); /* NULL is fine; take it off engines first */

/* Reads the header of a file and gives its metadata and tensor list as a JSON object
 * {"version", "alignment", "metadata": {...}, "tensors": [{"name", "shape", "type", "offset", "n_bytes"}]}.
 * Arrays longer than max_array are cut and followed by a count. *json is freed by edgellm_free. */
EDGELLM_API edgellm_status edgellm_inspect(const char *path_utf8, int32_t max_array, char **json, size_t *n_bytes);
EDGELLM_API void edgellm_free(void *memory); /* what the library allocated for the caller; NULL is fine */

/* ---- engine --------------------------------------------------------------------------- */

typedef struct edgellm_engine edgellm_engine; /* KV blocks, scratch memory, threads */

typedef enum edgellm_kv_type { EDGELLM_KV_F16 = 0, EDGELLM_KV_F32 = 1, EDGELLM_KV_Q8_0 = 2 } edgellm_kv_type;

/* How rows become one embedding. The values from 0 on are those of pooling_type in files. */
typedef enum edgellm_pooling {
    EDGELLM_POOLING_MODEL = -1, /* as the file says; mean when it does not */
    EDGELLM_POOLING_NONE = 0,   /* one embedding for every token */
    EDGELLM_POOLING_MEAN = 1,
    EDGELLM_POOLING_CLS = 2,  /* of the first token */
    EDGELLM_POOLING_LAST = 3, /* of the last token */
    EDGELLM_POOLING_RANK = 4  /* the scores of the model's classifier */
} edgellm_pooling;

/* How positions turn into angles, instead of what the file says. */
typedef enum edgellm_rope {
    EDGELLM_ROPE_MODEL = -1,
    EDGELLM_ROPE_NONE = 0,   /* as trained, whatever the file stretches */
    EDGELLM_ROPE_LINEAR = 1, /* positions divided by the factor */
    EDGELLM_ROPE_YARN = 2,   /* high frequencies as trained, low ones divided (Peng et al. 2023) */
    EDGELLM_ROPE_NTK = 3,    /* the base grows with the factor */
    EDGELLM_ROPE_DYNAMIC = 4 /* the base grows with how far n_ctx exceeds the original context */
} edgellm_rope;

typedef struct edgellm_engine_options {
    uint32_t struct_size; /* set by edgellm_engine_options_init */
    int32_t n_ctx;        /* tokens one sequence may hold; 0: what the model was trained for, as memory allows */
    int32_t n_seqs;       /* sequences open at once, 1 to 256; fewer if the recurrent memory of so many would take more
                             than half of the free memory (see edgellm_engine_info) */
    int32_t n_batch;      /* tokens in one step, at most 4096 */
    int32_t n_threads;    /* 0: one per physical performance core we may use */
    int32_t kv_type;      /* edgellm_kv_type */
    int32_t embeddings;   /* 1: steps compute embeddings instead of logits */
    int32_t pooling;      /* edgellm_pooling, of embeddings */
    int32_t rope;         /* edgellm_rope; the numbers below hold for any, 0 leaves what the file says */
    int32_t rope_original_ctx; /* context that the model was trained for before stretching */
    float rope_factor;         /* how much longer the context is to be */
    float rope_base;           /* of the angles */
    uint64_t kv_bytes;         /* limit of the KV cache; 0: n_ctx * n_seqs tokens, at most half of free memory */
} edgellm_engine_options;
EDGELLM_API void edgellm_engine_options_init(edgellm_engine_options *options);

/* The model must outlive the engine. Errors: EINVAL, ENOMEM, EUNSUPPORTED. */
EDGELLM_API edgellm_status edgellm_engine_new(edgellm_engine **out, const edgellm_model *model,
                                              const edgellm_engine_options *options);
EDGELLM_API void edgellm_engine_free(edgellm_engine *engine); /* NULL is fine */

typedef struct edgellm_engine_info {
    uint32_t struct_size; /* set by the caller */
    int32_t n_ctx;
    int32_t n_seqs;
    int32_t n_batch;
    int32_t n_threads;
    int32_t n_blocks; /* KV blocks of 32 tokens */
    int32_t n_blocks_free;
    int32_t n_plans;      /* graph plans in the cache */
    uint64_t kv_bytes;    /* reserved; touched only as sequences grow */
    uint64_t state_bytes; /* recurrent memory of all sequences and of their checkpoints; 0: the model has none */
    uint64_t scratch_bytes;
    char isa[32]; /* instruction set in use: "avx2" */
} edgellm_engine_info;
EDGELLM_API edgellm_status edgellm_engine_get_info(const edgellm_engine *engine, edgellm_engine_info *info);

/* What the steps of this engine apply from now on: n adapters (at most 8), each times its scale; 0 takes all off. What
 * sequences have in the cache stays as it was computed: close them, or their next tokens mix both. The results of the
 * last step are lost. Adapters must outlive their use. Errors: EINVAL. */
EDGELLM_API edgellm_status edgellm_engine_set_adapters(edgellm_engine *engine, const edgellm_adapter *const *adapters,
                                                       const float *scales, int32_t n);

/* Makes the running step end with ECANCELLED within one graph node; without one running, the next.
 * Any thread may call it. */
EDGELLM_API void edgellm_engine_cancel(edgellm_engine *engine);

/* What went into the products with one tensor of weights, summed over all rows of all steps since collecting began. */
typedef struct edgellm_activations {
    uint32_t struct_size; /* set by the caller to sizeof(edgellm_activations) */
    int32_t n_in;         /* values of a row */
    int32_t n_matrices;   /* 1, or the number of experts */
    const char *name;     /* of the tensor, "blk.0.ffn_down.weight"; NULL after the last */
    const double *sums;   /* [n_matrices, n_in]: sums of squares */
    const int64_t *rows;  /* [n_matrices]: how many each has seen */
} edgellm_activations;

/* on: sums are kept from now on, from zero, and steps are computed by ggml's own CPU backend, since edgellm's never
 * writes most of these rows to memory; 0: no more, and what was collected is forgotten. Errors: ENOMEM. */
EDGELLM_API edgellm_status edgellm_engine_collect(edgellm_engine *engine, int32_t on);
/* Entry i, in the order in which the tensors were first used; the engine owns it until its next step or collect.
 * Errors: EINVAL when nothing is being collected. */
EDGELLM_API edgellm_status edgellm_engine_activations(const edgellm_engine *engine, int32_t i,
                                                      edgellm_activations *out);

/* ---- sequences ------------------------------------------------------------------------ */

/* Opens an empty sequence. Errors: EFULL. */
EDGELLM_API edgellm_status edgellm_seq_open(edgellm_engine *engine, int32_t *seq);
/* Gives its KV blocks back. Errors: EINVAL. */
EDGELLM_API edgellm_status edgellm_seq_close(edgellm_engine *engine, int32_t seq);
/* Tokens computed so far, or -1 for a sequence that is not open. */
EDGELLM_API int32_t edgellm_seq_length(const edgellm_engine *engine, int32_t seq);
/* Forgets all tokens from position n_tokens on. Not every model can undo them one by one: recurrent layers keep a state
 * of fixed size, and sliding layers no longer have what their window has left, but for 64 tokens. Then the sequence
 * goes back to its nearest checkpoint at or below n_tokens, or to 0; edgellm_seq_length tells how many tokens are left,
 * and the caller computes the rest again. 0 and the present length can always be had. Errors: EINVAL. */
EDGELLM_API edgellm_status edgellm_seq_truncate(edgellm_engine *engine, int32_t seq, int32_t n_tokens);
/* Makes the present length one that edgellm_seq_truncate can come back to, by a copy of the recurrent memory and a hold
 * on what the window shows. A sequence has at most 8 of them, fewer when copies are large (256 MB for all sequences,
 * but one each). The oldest is dropped, also when its part of the cache is needed; so are those that a truncation
 * leaves behind. Where every length can be gone back to without, this does nothing. Errors: EINVAL, ENOMEM. */
EDGELLM_API edgellm_status edgellm_seq_checkpoint(edgellm_engine *engine, int32_t seq);

/* ---- sampling ------------------------------------------------------------------------- */

typedef struct edgellm_logit_bias {
    int32_t token;
    float bias; /* added to the logit; -infinity forbids the token */
} edgellm_logit_bias;

typedef struct edgellm_text { /* bytes with a length; the caller's */
    const char *data;
    size_t n_bytes;
} edgellm_text;

/* How one sequence chooses its tokens. Filters run in this order: bias, penalties, top_k, typical_p,
 * top_p, min_p, temperature. Everything is copied by edgellm_seq_sample. */
typedef struct edgellm_sampling {
    uint32_t struct_size;    /* set by edgellm_sampling_init */
    float temperature;       /* 0: the most likely token */
    int32_t top_k;           /* 0: off */
    float top_p;             /* 1: off */
    float min_p;             /* 0: off */
    float typical_p;         /* 1: off */
    float repeat_penalty;    /* 1: off; divides positive logits, multiplies negative ones */
    float presence_penalty;  /* 0: off */
    float frequency_penalty; /* 0: off */
    int32_t penalty_last_n;  /* tokens the penalties look back on; -1: all, 0: none */
    uint64_t seed;           /* the same seed, prompt and settings give the same tokens */
    int32_t n_logprobs;      /* -1: none, 0: of the chosen token, n <= 20: also of the n most likely */
    int32_t max_tokens;      /* -1: until the context is full */
    int32_t ignore_eog;      /* 1: end-of-generation tokens do not end it */
    int32_t keep_special;    /* 1: control tokens appear in the text */
    int32_t heal_token;      /* token healing: the first token's text begins with this token's, which stays out of the
                                text of the generation; the caller leaves it off the prompt. -1: none */
    const edgellm_logit_bias *bias;
    size_t n_bias;
    const int32_t *stop_tokens;
    size_t n_stop_tokens;
    const edgellm_text *stop_strings;
    size_t n_stop_strings;
} edgellm_sampling;
EDGELLM_API void edgellm_sampling_init(edgellm_sampling *sampling);

typedef enum edgellm_finish {
    EDGELLM_FINISH_NONE = 0,
    EDGELLM_FINISH_EOG = 1,   /* a token that ends generation, or a stop token */
    EDGELLM_FINISH_STOP = 2,  /* a stop string */
    EDGELLM_FINISH_LENGTH = 3 /* max_tokens, or the context is full */
} edgellm_finish;

typedef struct edgellm_sampled {
    int32_t token;
    int32_t finish; /* edgellm_finish */
    float logprob;  /* natural log, of the model's own distribution (before filters) */
    int32_t n_top;
    int32_t top_tokens[20];
    float top_logprobs[20];
} edgellm_sampled;

/* Starts a generation on a sequence: sets how it samples and forgets the text and counts of the one before.
 * history: tokens the penalties count from the start (usually the prompt). Errors: EINVAL, ENOMEM. */
EDGELLM_API edgellm_status edgellm_seq_sample(edgellm_engine *engine, int32_t seq, const edgellm_sampling *sampling,
                                              const int32_t *history, size_t n_history);

/* Takes the text that is ready: whole code points, nothing that may yet turn out to be a stop string.
 * Copies at most cap bytes, sets *n_bytes; call until it is 0. Errors: EINVAL. */
EDGELLM_API edgellm_status edgellm_seq_take_text(edgellm_engine *engine, int32_t seq, char *buf, size_t cap,
                                                 size_t *n_bytes);

/* ---- one step ------------------------------------------------------------------------- */

typedef enum edgellm_outputs { EDGELLM_OUT_NONE = 0, EDGELLM_OUT_LAST = 1, EDGELLM_OUT_ALL = 2 } edgellm_outputs;

typedef struct edgellm_item { /* what one sequence computes in a step */
    int32_t seq;
    int32_t n_tokens;      /* at least 1 */
    const int32_t *tokens; /* appended to the sequence; read during step_begin only */
    int32_t outputs;       /* edgellm_outputs: whose logits are kept */
    int32_t sample;        /* 1: choose a next token from the last one's logits */
    int32_t encode;        /* 1: the tokens are the source text of an encoder-decoder model: given once, whole, before
                              any other, in steps of their own, without outputs */
    int32_t type_from;     /* positions from this one on are of a second text, for models that mark it (BERT's token
                              types); 0: there is none */
} edgellm_item;

/* Prepares a step: each sequence at most once, at most n_batch tokens in all. On failure nothing has changed.
 * Errors: EINVAL, ECONTEXT, EFULL, ENOMEM. */
EDGELLM_API edgellm_status edgellm_step_begin(edgellm_engine *engine, const edgellm_item *items, int32_t n_items);

/* Computes for about budget_ms (0: to the end). AGAIN: call again. After ECANCELLED or another error the
 * sequences are as they were before step_begin. */
EDGELLM_API edgellm_status edgellm_step_run(edgellm_engine *engine, int32_t budget_ms);

/* Logits of item i of the last step: *rows rows of n_vocab floats, in token order; the engine owns them
 * until its next step_begin. */
EDGELLM_API edgellm_status edgellm_step_logits(const edgellm_engine *engine, int32_t item, const float **logits,
                                               int32_t *rows);
/* Embeddings of item i of the last step: *rows rows of *width floats: one row for each token asked for with pooling
 * NONE, else one. Not normalised. Ownership as for logits. */
EDGELLM_API edgellm_status edgellm_step_embeddings(const edgellm_engine *engine, int32_t item, const float **values,
                                                   int32_t *rows, int32_t *width);
/* The token chosen for item i of the last step. Errors: EINVAL when it did not sample. */
EDGELLM_API edgellm_status edgellm_step_sampled(const edgellm_engine *engine, int32_t item, edgellm_sampled *out);

/* cdef: end */

#ifdef __cplusplus
}
#endif
#endif
