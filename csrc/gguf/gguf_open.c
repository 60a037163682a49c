/* gguf_open.c - opening, closing and looking up; the parsing is in gguf_keys.c and gguf_tensors.c. */
#include "gguf_internal.h"

static el_gguf_cursor cursor_over(const uint8_t *data, size_t n_bytes, uint64_t file_bytes, const char *name)
{
    el_gguf_cursor c = {.data = data, .file_bytes = file_bytes, .file = name};

    c.end = EL_MIN(n_bytes, EL_GGUF_MAX_HEADER);
    return c;
}

static edgellm_status read_header(el_gguf_cursor *c, el_gguf *file)
{
    edgellm_status status;

    EL_TRY(el_gguf_read_start(c, file));
    EL_TRY(el_gguf_read_keys(c, file));
done:
    return status;
}

static edgellm_status index_tensors(el_gguf *file)
{
    return el_gguf_index_build(&file->names, file->tensors, file->n_tensors, sizeof *file->tensors, file->name,
                               "tensor");
}

/* Maps one more part. file->maps has room for it. */
static edgellm_status map_part(el_gguf *file, const char *path, unsigned flags, el_gguf_cursor *c)
{
    /* Only a header: what a 32-bit system can always map, whatever the model's size. */
    size_t limit = flags & EL_GGUF_HEADER_ONLY ? (size_t)EL_GGUF_MAX_HEADER : SIZE_MAX;
    el_filemap *map = &file->maps[file->n_maps];
    edgellm_status status = el_filemap_open(map, path, limit);

    if (status == EDGELLM_OK) {
        file->n_maps++;
        *c = cursor_over(map->data, map->n_bytes, map->file_bytes, map->name);
    }
    return status;
}

static edgellm_status check_part(const el_gguf *file, const el_gguf *part, uint32_t number)
{
    if (part->split_count == file->split_count && part->split_no == number)
        return EDGELLM_OK;
    return el_fail(EDGELLM_EFORMAT,
                   "%.200s says it is part %" PRIu32 " of %" PRIu32 ", by its name it is part %" PRIu32 " of %" PRIu32
                   "; give the parts their right names or download them again",
                   part->name, part->split_no + 1, EL_MAX(part->split_count, 1), number + 1, file->split_count);
}

/* Puts the part's number before the sentence that says why it could not be opened. */
static edgellm_status part_not_opened(const el_gguf *file, uint32_t number, edgellm_status status)
{
    char why[900];

    snprintf(why, sizeof why, "%s", el_error_text());
    return el_fail(status, "part %" PRIu32 " of %" PRIu32 " cannot be opened: %s", number + 1, file->split_count, why);
}

static edgellm_status add_part(el_gguf *file, const char *path, uint32_t number, unsigned flags)
{
    edgellm_status status;
    el_gguf part = {0};
    el_gguf_cursor c;

    status = map_part(file, path, flags, &c);
    if (status != EDGELLM_OK)
        return part_not_opened(file, number, status);
    part.name = c.file;
    EL_TRY(read_header(&c, &part));
    EL_TRY(check_part(file, &part, number));
    EL_TRY(el_gguf_read_tensors(&c, file, part.alignment, (int32_t)number, flags));
done:
    el_free(part.kv); /* the first part's metadata speaks for all */
    el_free(part.keys.slots);
    return status;
}

static edgellm_status add_parts(el_gguf *file, const char *path, unsigned flags)
{
    edgellm_status status;
    uint64_t n_tensors = UINT64_MAX;
    el_filemap *maps = el_realloc(file->maps, file->split_count, sizeof *maps);

    if (!maps)
        return el_no_memory(file->split_count * sizeof *maps);
    file->maps = maps;
    for (uint32_t i = 1; i < file->split_count; i++) {
        char *part_path = NULL;

        EL_TRY(el_gguf_part_path(file, path, i, &part_path));
        status = add_part(file, part_path, i, flags);
        el_free(part_path);
        if (status != EDGELLM_OK)
            goto done;
    }
    EL_TRY(el_gguf_get_u64(file, "split.tensors.count", &n_tensors));
    if (n_tensors != UINT64_MAX && n_tensors != file->n_tensors)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: split.tensors.count is %" PRIu64 ", but its %" PRIu32
                       " parts have %zu tensors; some part belongs to another model",
                       file->name, n_tensors, file->split_count, file->n_tensors);
done:
    return status;
}

static edgellm_status open_path(el_gguf *file, const char *path, unsigned flags)
{
    edgellm_status status;
    el_gguf_cursor c;

    file->maps = el_alloc(1, sizeof *file->maps);
    if (!file->maps)
        return el_no_memory(sizeof *file->maps);
    EL_TRY(map_part(file, path, flags, &c));
    file->name = c.file;
    EL_TRY(read_header(&c, file));
    if (file->split_count > 0)
        EL_TRY(el_gguf_check_first(file, path));
    EL_TRY(el_gguf_read_tensors(&c, file, file->alignment, 0, flags));
    if (file->split_count > 0 && !(flags & EL_GGUF_HEADER_ONLY))
        EL_TRY(add_parts(file, path, flags));
    EL_TRY(index_tensors(file));
done:
    return status;
}

static edgellm_status open_bytes(el_gguf *file, const void *data, size_t n_bytes, unsigned flags)
{
    edgellm_status status;
    el_gguf_cursor c = cursor_over(data, n_bytes, n_bytes, "the data");

    file->name = c.file;
    EL_TRY(read_header(&c, file));
    if (file->split_count > 0 && !(flags & EL_GGUF_HEADER_ONLY))
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "the data is part %" PRIu32 " of %" PRIu32 " of a split model, which must be opened from files",
                       file->split_no + 1, file->split_count);
    EL_TRY(el_gguf_read_tensors(&c, file, file->alignment, 0, flags));
    EL_TRY(index_tensors(file));
done:
    return status;
}

static edgellm_status open_any(el_gguf **out, const char *path, const void *data, size_t n_bytes, unsigned flags)
{
    edgellm_status status;
    el_gguf *file = el_alloc(1, sizeof *file);

    *out = NULL;
    if (!file)
        return el_no_memory(sizeof *file);
    EL_TRY(path ? open_path(file, path, flags) : open_bytes(file, data, n_bytes, flags));
    *out = file;
    file = NULL;
done:
    el_gguf_close(file);
    return status;
}

edgellm_status el_gguf_open(el_gguf **out, const char *path_utf8, unsigned flags)
{
    return open_any(out, path_utf8, NULL, 0, flags);
}

edgellm_status el_gguf_open_memory(el_gguf **out, const void *data, size_t n_bytes, unsigned flags)
{
    return open_any(out, NULL, data, n_bytes, flags);
}

void el_gguf_close(el_gguf *file)
{
    if (!file)
        return;
    el_free(file->kv);
    el_free(file->keys.slots);
    el_free(file->tensors);
    el_free(file->names.slots);
    for (size_t i = 0; i < file->n_maps; i++)
        el_filemap_close(&file->maps[i]);
    el_free(file->maps);
    el_free(file);
}

edgellm_status el_gguf_check_unchanged(const el_gguf *file)
{
    edgellm_status status = EDGELLM_OK;

    for (size_t i = 0; i < file->n_maps && status == EDGELLM_OK; i++)
        status = el_filemap_check(&file->maps[i]);
    return status;
}

uint32_t el_gguf_version(const el_gguf *file) { return file->version; }
uint64_t el_gguf_alignment(const el_gguf *file) { return file->alignment; }
size_t el_gguf_n_kv(const el_gguf *file) { return file->n_kv; }
size_t el_gguf_n_tensors(const el_gguf *file) { return file->n_tensors; }

const el_gguf_kv *el_gguf_kv_at(const el_gguf *file, size_t i) { return i < file->n_kv ? &file->kv[i] : NULL; }

const el_gguf_tensor *el_gguf_tensor_at(const el_gguf *file, size_t i)
{
    return i < file->n_tensors ? &file->tensors[i] : NULL;
}

const el_gguf_kv *el_gguf_find(const el_gguf *file, const char *key)
{
    return el_gguf_kv_at(file, el_gguf_index_find(&file->keys, key, strlen(key)));
}

const el_gguf_tensor *el_gguf_find_tensor(const el_gguf *file, const char *name)
{
    return el_gguf_tensor_at(file, el_gguf_index_find(&file->names, name, strlen(name)));
}
