/* filemap.c - open, check, map. POSIX first, Windows below it. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64 /* files over 2 GiB on 32-bit systems */
#include "filemap.h"

#include <inttypes.h>
#include <string.h>

#include "mem.h"

const char *el_file_name(const char *path)
{
    const char *name = path;

    for (const char *p = path; *p; p++) {
#ifdef _WIN32
        if ((*p == '/' || *p == '\\' || *p == ':') && p[1])
            name = p + 1;
#else
        if (*p == '/' && p[1])
            name = p + 1;
#endif
    }
    return name;
}

static edgellm_status changed(const el_filemap *map, uint64_t now_bytes)
{
    if (now_bytes < map->file_bytes)
        return el_fail(EDGELLM_EIO,
                       "%.200s was cut from %" PRIu64 " to %" PRIu64
                       " bytes while it was open; restore it and open it again (replace models by rename)",
                       map->name, map->file_bytes, now_bytes);
    return el_fail(EDGELLM_EIO,
                   "%.200s was written to while it was open (%" PRIu64 " bytes, %" PRIu64
                   " when opened); open it again (replace models by rename)",
                   map->name, now_bytes, map->file_bytes);
}

static edgellm_status set_sizes(el_filemap *map, uint64_t file_bytes, size_t limit)
{
    map->file_bytes = file_bytes;
    if (file_bytes <= limit) {
        map->n_bytes = (size_t)file_bytes;
        return EDGELLM_OK;
    }
    if (limit < SIZE_MAX) {
        map->n_bytes = limit;
        return EDGELLM_OK;
    }
    return el_fail(EDGELLM_EUNSUPPORTED,
                   "%.200s has %" PRIu64 " bytes, more than this %d-bit system can address; use a smaller model",
                   map->name, file_bytes, (int)sizeof(void *) * 8);
}

#ifndef _WIN32

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif

static edgellm_status open_failed(const char *path, int code)
{
    const char *name = el_file_name(path);

    switch (code) {
    case ENOENT:
        return el_fail(EDGELLM_EIO, "no such file: %.900s", path);
    case ENOTDIR:
        return el_fail(EDGELLM_EIO, "a part of the path is not a folder: %.900s", path);
    case EACCES:
    case EPERM:
        return el_fail(EDGELLM_EIO, "no permission to read %.900s; check its mode and its folder's", path);
    case ELOOP:
        return el_fail(EDGELLM_EIO, "too many symbolic links on the way to %.900s", path);
    case ENAMETOOLONG:
        return el_fail(EDGELLM_EIO, "the path is too long for this system: %.200s...", path);
    case EMFILE:
    case ENFILE:
        return el_fail(EDGELLM_EIO, "%.200s: too many open files; close some or raise the limit (ulimit -n)", name);
    case ENXIO:
        return el_fail(EDGELLM_EIO, "%.200s is a socket or device, not a regular file", name);
    case ENOMEM:
        return el_fail(EDGELLM_ENOMEM, "%.200s: the system has no memory left to open it", name);
    default:
        return el_fail(EDGELLM_EIO, "%.200s could not be opened (system error %d)", name, code);
    }
}

static const char *kind_of(mode_t mode)
{
    if (S_ISDIR(mode))
        return "a folder; name the .gguf file inside it";
    if (S_ISFIFO(mode))
        return "a pipe; a model must be a regular file";
    if (S_ISSOCK(mode))
        return "a socket; a model must be a regular file";
    return "a device; a model must be a regular file";
}

static int64_t modified_at(const struct stat *st)
{
#ifdef __linux__
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
#else
    return (int64_t)st->st_mtime;
#endif
}

static edgellm_status map_open_file(el_filemap *map, const char *path, size_t limit)
{
    edgellm_status status = EDGELLM_OK;
    struct stat st;
    void *data;

    if (fstat((int)map->handle, &st) != 0)
        return open_failed(path, errno);
    if (!S_ISREG(st.st_mode))
        return el_fail(EDGELLM_EIO, "%.200s is %s", map->name, kind_of(st.st_mode));
    map->modified = modified_at(&st);
    map->inode = (uint64_t)st.st_ino;
    EL_TRY(set_sizes(map, (uint64_t)st.st_size, limit));
    if (map->n_bytes == 0)
        return EDGELLM_OK;
    data = mmap(NULL, map->n_bytes, PROT_READ, MAP_SHARED, (int)map->handle, 0);
    if (data == MAP_FAILED)
        return el_fail(errno == ENOMEM ? EDGELLM_ENOMEM : EDGELLM_EIO,
                       "%.200s: mapping its %zu bytes was refused (system error %d)", map->name, map->n_bytes, errno);
    map->data = data;
done:
    return status;
}

edgellm_status el_filemap_open(el_filemap *map, const char *path_utf8, size_t limit)
{
    edgellm_status status = EDGELLM_OK;
    int fd;

    memset(map, 0, sizeof *map);
    do { /* O_NONBLOCK: a pipe without a writer would hang here for ever; it means nothing to a regular file */
        fd = open(path_utf8, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return open_failed(path_utf8, errno);
    map->handle = fd;
    map->is_open = true;
    map->name = el_strndup(el_file_name(path_utf8), strlen(el_file_name(path_utf8)));
    if (!map->name)
        EL_TRY(el_no_memory(strlen(path_utf8)));
    EL_TRY(map_open_file(map, path_utf8, limit));
done:
    if (status != EDGELLM_OK)
        el_filemap_close(map);
    return status;
}

void el_filemap_close(el_filemap *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->n_bytes);
    if (map->is_open)
        close((int)map->handle);
    el_free(map->name);
    memset(map, 0, sizeof *map);
}

edgellm_status el_filemap_check(const el_filemap *map)
{
    struct stat st;

    if (fstat((int)map->handle, &st) != 0)
        return el_fail(EDGELLM_EIO, "%.200s can no longer be read (system error %d)", map->name, errno);
    if ((uint64_t)st.st_size != map->file_bytes || modified_at(&st) != map->modified ||
        (uint64_t)st.st_ino != map->inode)
        return changed(map, (uint64_t)st.st_size);
    return EDGELLM_OK;
}

#else

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

static edgellm_status open_failed(const char *path, DWORD code)
{
    switch (code) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
        return el_fail(EDGELLM_EIO, "no such file: %.900s", path);
    case ERROR_ACCESS_DENIED: /* also what opening a folder gives */
        return el_fail(EDGELLM_EIO, "no permission to read %.800s, or it is a folder", path);
    case ERROR_SHARING_VIOLATION:
        return el_fail(EDGELLM_EIO, "another program is writing %.900s; wait until it has finished", path);
    default:
        return el_fail(EDGELLM_EIO, "%.200s could not be opened (system error %lu)", el_file_name(path),
                       (unsigned long)code);
    }
}

static wchar_t *wide_path(const char *path)
{
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    wchar_t *wide = n > 0 ? el_alloc((size_t)n, sizeof *wide) : NULL;

    if (wide)
        MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, n);
    return wide;
}

static void take_identity(el_filemap *map, const BY_HANDLE_FILE_INFORMATION *info)
{
    map->inode = (uint64_t)info->nFileIndexHigh << 32 | info->nFileIndexLow;
    map->modified =
        (int64_t)((uint64_t)info->ftLastWriteTime.dwHighDateTime << 32 | info->ftLastWriteTime.dwLowDateTime);
}

static edgellm_status map_open_file(el_filemap *map, const char *path, size_t limit)
{
    edgellm_status status = EDGELLM_OK;
    BY_HANDLE_FILE_INFORMATION info;

    if (GetFileType((HANDLE)map->handle) != FILE_TYPE_DISK)
        return el_fail(EDGELLM_EIO, "%.200s is a device or pipe; a model must be a regular file", map->name);
    if (!GetFileInformationByHandle((HANDLE)map->handle, &info))
        return open_failed(path, GetLastError());
    take_identity(map, &info);
    EL_TRY(set_sizes(map, (uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow, limit));
    if (map->n_bytes == 0)
        return EDGELLM_OK;
    map->view = CreateFileMappingW((HANDLE)map->handle, NULL, PAGE_READONLY, 0, 0, NULL);
    map->data = map->view ? MapViewOfFile(map->view, FILE_MAP_READ, 0, 0, map->n_bytes) : NULL;
    if (!map->data)
        return el_fail(EDGELLM_EIO, "%.200s: mapping its %zu bytes was refused (system error %lu)", map->name,
                       map->n_bytes, (unsigned long)GetLastError());
done:
    return status;
}

edgellm_status el_filemap_open(el_filemap *map, const char *path_utf8, size_t limit)
{
    edgellm_status status = EDGELLM_OK;
    wchar_t *wide = wide_path(path_utf8);

    memset(map, 0, sizeof *map);
    if (!wide)
        return el_fail(EDGELLM_EIO, "not a path in UTF-8: %.900s", path_utf8);
    map->handle = (intptr_t)CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                                        FILE_ATTRIBUTE_NORMAL, NULL);
    el_free(wide);
    if ((HANDLE)map->handle == INVALID_HANDLE_VALUE)
        return open_failed(path_utf8, GetLastError());
    map->is_open = true;
    map->name = el_strndup(el_file_name(path_utf8), strlen(el_file_name(path_utf8)));
    if (!map->name)
        EL_TRY(el_no_memory(strlen(path_utf8)));
    EL_TRY(map_open_file(map, path_utf8, limit));
done:
    if (status != EDGELLM_OK)
        el_filemap_close(map);
    return status;
}

void el_filemap_close(el_filemap *map)
{
    if (map->data)
        UnmapViewOfFile(map->data);
    if (map->view)
        CloseHandle(map->view);
    if (map->is_open)
        CloseHandle((HANDLE)map->handle);
    el_free(map->name);
    memset(map, 0, sizeof *map);
}

edgellm_status el_filemap_check(const el_filemap *map)
{
    BY_HANDLE_FILE_INFORMATION info;
    el_filemap now = *map;
    uint64_t n_bytes;

    if (!GetFileInformationByHandle((HANDLE)map->handle, &info))
        return el_fail(EDGELLM_EIO, "%.200s can no longer be read (system error %lu)", map->name,
                       (unsigned long)GetLastError());
    take_identity(&now, &info);
    n_bytes = (uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow;
    if (n_bytes != map->file_bytes || now.modified != map->modified || now.inode != map->inode)
        return changed(map, n_bytes);
    return EDGELLM_OK;
}

#endif
