/* dynload.c - dlopen and LoadLibrary behind one pair of functions. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr */
#endif
#include "dynload.h"

#include <string.h>

/* Cuts the file name off. Returns 0 when there is no folder in the path. */
static int keep_folder(char *path)
{
    char *slash = strrchr(path, '/');
#ifdef _WIN32
    char *back = strrchr(path, '\\');
    if (!slash || (back && back > slash))
        slash = back;
#endif
    if (!slash)
        return 0;
    *slash = 0;
    return 1;
}

#ifdef _WIN32

#include <windows.h>

enum { WIDE = 4096 };

edgellm_status el_dl_folder(char *out, size_t cap)
{
    HMODULE self = NULL;
    wchar_t wide[WIDE];
    DWORD n;

    if (!GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                            (LPCWSTR)(void *)el_dl_folder, &self))
        return el_fail(EDGELLM_EIO, "cannot find the library's own file (error %lu)", GetLastError());
    n = GetModuleFileNameW(self, wide, WIDE);
    if (n == 0 || n >= WIDE || !WideCharToMultiByte(CP_UTF8, 0, wide, -1, out, (int)cap, NULL, NULL) ||
        !keep_folder(out))
        return el_fail(EDGELLM_EIO, "cannot find the library's own folder (error %lu)", GetLastError());
    return EDGELLM_OK;
}

edgellm_status el_dl_load(const char *path_utf8, const char *symbol, el_dl_function **out)
{
    wchar_t wide[WIDE];
    HMODULE library;

    *out = NULL;
    if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path_utf8, -1, wide, WIDE))
        return el_fail(EDGELLM_EIO, "%s: not a usable path", path_utf8);
    library = LoadLibraryW(wide);
    if (!library)
        return el_fail(EDGELLM_EIO, "cannot load %s (error %lu)", path_utf8, GetLastError());
    *out = (el_dl_function *)(void *)GetProcAddress(library, symbol);
    if (!*out)
        return el_fail(EDGELLM_EIO, "%s holds no %s", path_utf8, symbol);
    return EDGELLM_OK;
}

#else

#include <dlfcn.h>
#include <stdlib.h>

static const char marker; /* an address inside this library */

edgellm_status el_dl_folder(char *out, size_t cap)
{
    Dl_info info;
    const char *name;
    char *full;
    size_t n;

    /* In a program (a test) the name is argv[0], so relative or bare: /proc knows better there. */
    name = dladdr(&marker, &info) && info.dli_fname ? info.dli_fname : "";
    full = realpath(strchr(name, '/') ? name : "/proc/self/exe", NULL);
    if (!full)
        return el_fail(EDGELLM_EIO, "cannot find the library's own file (%s)", name);
    n = strlen(full);
    if (n < cap)
        memcpy(out, full, n + 1);
    free(full);
    if (n >= cap || !keep_folder(out))
        return el_fail(EDGELLM_EIO, "the path of the library itself has %zu bytes, more than %zu", n, cap - 1);
    return EDGELLM_OK;
}

edgellm_status el_dl_load(const char *path_utf8, const char *symbol, el_dl_function **out)
{
    void *library, *address;
    const char *reason;

    *out = NULL;
    library = dlopen(path_utf8, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        reason = dlerror();
        return el_fail(EDGELLM_EIO, "cannot load %s: %s", path_utf8, reason ? reason : "no reason given");
    }
    address = dlsym(library, symbol);
    if (!address)
        return el_fail(EDGELLM_EIO, "%s holds no %s", path_utf8, symbol);
    memcpy(out, &address, sizeof address); /* ISO C has no cast between the two kinds of pointer */
    return EDGELLM_OK;
}

#endif
