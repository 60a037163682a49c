/* chat.c - talk to a model from C, with nothing but edgellm.h: load, stream the answer, stop it by Ctrl-C.
 *
 *   cc -std=c99 -Iinclude examples/c/chat.c -Lsrc/edgellm/lib -ledgellm -Wl,-rpath,$PWD/src/edgellm/lib -o chat
 *   ./chat MODEL.gguf "Why is the sky blue?"      one answer
 *   ./chat MODEL.gguf                             a conversation, a line at a time
 *
 * Models with the tokens <|im_start|> and <|im_end|> are asked in that form (ChatML); others continue the text. What
 * the user types never becomes a control token: it is tokenized without EDGELLM_PARSE_SPECIAL.
 */
#include "edgellm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 1 << 16, DEFAULT_TOKENS = 256 };

typedef struct chat {
    edgellm_model *model;
    edgellm_engine *engine;
    const edgellm_vocab *vocab;
    int32_t seq;
    int32_t n_batch;
    int chatml;
    int32_t *ids; /* what the next step appends */
    size_t n_ids, room;
} chat;

static edgellm_engine *running; /* for the signal handler */

static void stop(int signal_number)
{
    (void)signal_number;
    edgellm_engine_cancel(running); /* sets a flag: allowed in a signal handler */
}

static int failed(const char *what)
{
    fprintf(stderr, "chat: %s: %s\n", what, edgellm_last_error());
    return 1;
}

/* Appends the ids of a text to those of the next step. */
static int add(chat *c, const char *text, uint32_t flags)
{
    size_t n = 0, n_bytes = strlen(text);
    for (;;) {
        if (edgellm_tokenize(c->vocab, text, n_bytes, flags, c->ids + c->n_ids, c->room - c->n_ids, &n) != EDGELLM_OK)
            return failed("the prompt");
        if (n <= c->room - c->n_ids)
            break;
        int32_t *more = realloc(c->ids, (c->n_ids + n) * sizeof *more);
        if (!more) {
            fprintf(stderr, "chat: not enough memory for a prompt of %zu tokens\n", n);
            return 1;
        }
        c->ids = more;
        c->room = c->n_ids + n;
    }
    c->n_ids += n;
    return 0;
}

/* One question in the model's form. */
static int ask(chat *c, const char *question, int first)
{
    c->n_ids = 0;
    if (!c->chatml)
        return add(c, question, first ? EDGELLM_ADD_SPECIAL : 0);
    const char *begin = first ? "<|im_start|>user\n" : "<|im_end|>\n<|im_start|>user\n";
    return add(c, begin, EDGELLM_PARSE_SPECIAL) || add(c, question, 0) ||
           add(c, "<|im_end|>\n<|im_start|>assistant\n", EDGELLM_PARSE_SPECIAL);
}

/* Computes n tokens of the sequence; the last step also chooses the next token when sample is 1. */
static edgellm_status step(chat *c, const int32_t *tokens, size_t n, int sample)
{
    edgellm_status status = EDGELLM_OK;
    while (n > 0 && status == EDGELLM_OK) {
        size_t now = n < (size_t)c->n_batch ? n : (size_t)c->n_batch;
        edgellm_item item = {0};
        item.seq = c->seq;
        item.tokens = tokens;
        item.n_tokens = (int32_t)now;
        if (now == n) {
            item.outputs = EDGELLM_OUT_LAST;
            item.sample = sample;
        }
        status = edgellm_step_begin(c->engine, &item, 1);
        if (status == EDGELLM_OK)
            status = edgellm_step_run(c->engine, 0);
        tokens += now;
        n -= now;
    }
    return status;
}

static int print_ready(chat *c)
{
    char text[256];
    size_t n;
    do {
        if (edgellm_seq_take_text(c->engine, c->seq, text, sizeof text, &n) != EDGELLM_OK)
            return failed("the answer");
        fwrite(text, 1, n, stdout);
    } while (n > 0);
    return fflush(stdout) != 0;
}

/* Streams an answer to what ask() prepared. */
static int answer(chat *c, int32_t max_tokens)
{
    edgellm_sampling sampling;
    edgellm_sampled next = {0};
    edgellm_sampling_init(&sampling);
    sampling.max_tokens = max_tokens;
    if (edgellm_seq_sample(c->engine, c->seq, &sampling, c->ids, c->n_ids) != EDGELLM_OK)
        return failed("sampling");
    signal(SIGINT, stop); /* between answers Ctrl-C ends the program */
    edgellm_status status = step(c, c->ids, c->n_ids, 1);
    while (status == EDGELLM_OK) {
        if (edgellm_step_sampled(c->engine, 0, &next) != EDGELLM_OK)
            return failed("sampling");
        if (print_ready(c))
            return 1;
        if (next.finish != EDGELLM_FINISH_NONE)
            break;
        status = step(c, &next.token, 1, 1);
    }
    signal(SIGINT, SIG_DFL);
    printf("\n");
    if (status == EDGELLM_ECANCELLED) {
        fprintf(stderr, "chat: stopped\n");
        return 130;
    }
    return status == EDGELLM_OK ? 0 : failed("computing");
}

static int has_chatml(const edgellm_vocab *vocab)
{
    int32_t id = 0;
    size_t n = 0;
    const char *text = "<|im_start|>";
    return edgellm_tokenize(vocab, text, strlen(text), EDGELLM_PARSE_SPECIAL, &id, 1, &n) == EDGELLM_OK && n == 1;
}

static int open_chat(chat *c, const char *path, int32_t n_threads)
{
    edgellm_engine_options options;
    edgellm_engine_info info = {0};
    if (edgellm_model_open(&c->model, path) != EDGELLM_OK)
        return failed("the model");
    edgellm_engine_options_init(&options);
    options.n_seqs = 1;
    options.n_threads = n_threads;
    if (edgellm_engine_new(&c->engine, c->model, &options) != EDGELLM_OK)
        return failed("the engine");
    info.struct_size = sizeof info;
    if (edgellm_engine_get_info(c->engine, &info) != EDGELLM_OK || edgellm_seq_open(c->engine, &c->seq) != EDGELLM_OK)
        return failed("the engine");
    c->n_batch = info.n_batch;
    c->vocab = edgellm_model_vocab(c->model);
    c->chatml = has_chatml(c->vocab);
    if (!c->chatml)
        fprintf(stderr, "chat: this model has no ChatML tokens: it continues the text\n");
    running = c->engine;
    return 0;
}

static int converse(chat *c, int32_t max_tokens)
{
    static char line[LINE_BYTES];
    int first = 1, status = 0;
    while (fputs("> ", stderr), fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (!line[0])
            continue;
        status = ask(c, line, first) ? 1 : answer(c, max_tokens);
        if (status == 1)
            break;
        first = 0;
    }
    return status == 130 ? 0 : status;
}

/* The number after an option, or -1. */
static long number(const char *text)
{
    char *end = NULL;
    errno = 0;
    long value = text ? strtol(text, &end, 10) : -1;
    return errno == 0 && end && *end == '\0' && value >= 0 && value < 1L << 20 ? value : -1;
}

int main(int argc, char **argv)
{
    chat c = {0};
    long max_tokens = DEFAULT_TOKENS, n_threads = 0;
    const char *words[2] = {NULL, NULL};
    int n_words = 0, usage = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-n") == 0 && i + 1 < argc)
            max_tokens = number(argv[++i]);
        else if (strcmp(argv[i], "-t") == 0 && i + 1 < argc)
            n_threads = number(argv[++i]);
        else if (argv[i][0] == '-' || n_words == 2)
            usage = 1;
        else
            words[n_words++] = argv[i];
    }
    if (usage || n_words == 0 || max_tokens < 0 || n_threads < 0) {
        fprintf(stderr, "usage: chat MODEL.gguf [PROMPT] [-n TOKENS] [-t THREADS]\n");
        return 2;
    }
    int code = open_chat(&c, words[0], (int32_t)n_threads);
    if (code == 0 && words[1])
        code = ask(&c, words[1], 1) ? 1 : answer(&c, (int32_t)max_tokens);
    else if (code == 0)
        code = converse(&c, (int32_t)max_tokens);
    edgellm_engine_free(c.engine);
    edgellm_model_free(c.model);
    free(c.ids);
    return code;
}
