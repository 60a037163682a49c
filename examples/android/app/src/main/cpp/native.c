/* native.c - org.edgellm.chat.Native: six calls of edgellm.h for Java. One chat at a time; `stop` from any thread.
 * Text crosses as byte arrays: Java's own UTF-8 is a modified one. */
#include "edgellm.h"

#include <jni.h>
#include <stdlib.h>
#include <string.h>

typedef struct chat {
    edgellm_model *model;
    edgellm_engine *engine;
    int32_t seq;
    int first; /* nothing computed yet */
} chat;

static void throw_last(JNIEnv *env)
{
    (*env)->ThrowNew(env, (*env)->FindClass(env, "java/lang/IllegalStateException"), edgellm_last_error());
}

static void release(chat *c)
{
    if (c) {
        edgellm_engine_free(c->engine);
        edgellm_model_free(c->model);
        free(c);
    }
}

JNIEXPORT jlong JNICALL Java_org_edgellm_chat_Native_open(JNIEnv *env, jclass cls, jstring path, jint n_ctx)
{
    (void)cls;
    chat *c = calloc(1, sizeof *c);
    const char *name = (*env)->GetStringUTFChars(env, path, NULL);
    edgellm_engine_options options;
    edgellm_engine_options_init(&options);
    options.n_seqs = 1;
    options.n_ctx = n_ctx;
    int fine = c && name && edgellm_model_open(&c->model, name) == EDGELLM_OK &&
               edgellm_engine_new(&c->engine, c->model, &options) == EDGELLM_OK &&
               edgellm_seq_open(c->engine, &c->seq) == EDGELLM_OK;
    if (!fine) {
        throw_last(env);
        release(c);
        c = NULL;
    } else {
        c->first = 1;
    }
    if (name)
        (*env)->ReleaseStringUTFChars(env, path, name);
    return (jlong)(intptr_t)c;
}

JNIEXPORT void JNICALL Java_org_edgellm_chat_Native_close(JNIEnv *env, jclass cls, jlong handle)
{
    (void)env, (void)cls;
    release((chat *)(intptr_t)handle);
}

JNIEXPORT void JNICALL Java_org_edgellm_chat_Native_stop(JNIEnv *env, jclass cls, jlong handle)
{
    (void)env, (void)cls;
    edgellm_engine_cancel(((chat *)(intptr_t)handle)->engine);
}

static edgellm_status compute(chat *c, const int32_t *ids, size_t n)
{
    edgellm_engine_info info = {0};
    info.struct_size = sizeof info;
    edgellm_status status = edgellm_engine_get_info(c->engine, &info);
    while (n > 0 && status == EDGELLM_OK) {
        size_t now = n < (size_t)info.n_batch ? n : (size_t)info.n_batch;
        edgellm_item item = {0};
        item.seq = c->seq;
        item.tokens = ids;
        item.n_tokens = (int32_t)now;
        item.outputs = now == n ? EDGELLM_OUT_LAST : EDGELLM_OUT_NONE;
        item.sample = now == n;
        status = edgellm_step_begin(c->engine, &item, 1);
        if (status == EDGELLM_OK)
            status = edgellm_step_run(c->engine, 0);
        ids += now;
        n -= now;
    }
    return status;
}

/* Gives the text that is ready to the listener's method `void text(byte[])`; 0: an exception is under way. */
static int deliver(JNIEnv *env, chat *c, jobject listener, jmethodID method)
{
    char text[256];
    size_t n;
    for (;;) {
        if (edgellm_seq_take_text(c->engine, c->seq, text, sizeof text, &n) != EDGELLM_OK) {
            throw_last(env);
            return 0;
        }
        if (n == 0)
            return 1;
        jbyteArray bytes = (*env)->NewByteArray(env, (jsize)n);
        if (!bytes)
            return 0;
        (*env)->SetByteArrayRegion(env, bytes, 0, (jsize)n, (const jbyte *)text);
        (*env)->CallVoidMethod(env, listener, method, bytes);
        (*env)->DeleteLocalRef(env, bytes);
        if ((*env)->ExceptionCheck(env))
            return 0;
    }
}

/* Answers a prompt (UTF-8, in the model's chat form already); returns when it has ended or `stop` was called. */
JNIEXPORT void JNICALL Java_org_edgellm_chat_Native_answer(JNIEnv *env, jclass cls, jlong handle, jbyteArray prompt,
                                                           jint max_tokens, jobject listener)
{
    (void)cls;
    chat *c = (chat *)(intptr_t)handle;
    jmethodID method = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, listener), "text", "([B)V");
    size_t n_bytes = (size_t)(*env)->GetArrayLength(env, prompt), n = 0, room = n_bytes + 8;
    char *text = malloc(n_bytes + 1);
    int32_t *ids = malloc(room * sizeof *ids); /* a token has at least a byte; BOS and EOS come on top */
    edgellm_sampling sampling;
    edgellm_sampled next = {0};
    edgellm_sampling_init(&sampling);
    sampling.max_tokens = max_tokens;
    if (!method || !text || !ids)
        goto done; /* Java has its exception, or no memory is left for one */
    (*env)->GetByteArrayRegion(env, prompt, 0, (jsize)n_bytes, (jbyte *)text);
    uint32_t flags = EDGELLM_PARSE_SPECIAL | (c->first ? EDGELLM_ADD_SPECIAL : 0);
    edgellm_status status = edgellm_tokenize(edgellm_model_vocab(c->model), text, n_bytes, flags, ids, room, &n);
    if (status == EDGELLM_OK)
        status = edgellm_seq_sample(c->engine, c->seq, &sampling, ids, n < room ? n : room);
    if (status == EDGELLM_OK)
        status = compute(c, ids, n < room ? n : room);
    c->first = 0;
    while (status == EDGELLM_OK && (status = edgellm_step_sampled(c->engine, 0, &next)) == EDGELLM_OK) {
        if (!deliver(env, c, listener, method) || next.finish != EDGELLM_FINISH_NONE)
            goto done;
        status = compute(c, &next.token, 1);
    }
    if (status != EDGELLM_ECANCELLED)
        throw_last(env);
done:
    free(text);
    free(ids);
}
