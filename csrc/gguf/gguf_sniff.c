/* gguf_sniff.c - what a file is when it is not GGUF: the mistakes people make, each with its remedy. */
#include "gguf_internal.h"

static bool starts(const uint8_t *data, uint64_t n_bytes, const char *prefix, size_t n)
{
    return n_bytes >= n && memcmp(data, prefix, n) == 0;
}

/* Like starts, for text: skips a byte-order mark and white space, ignores case. */
static bool starts_text(const uint8_t *data, uint64_t n_bytes, const char *prefix)
{
    uint64_t i = starts(data, n_bytes, "\xEF\xBB\xBF", 3) ? 3 : 0;

    while (i < n_bytes && (data[i] == ' ' || (data[i] >= 9 && data[i] <= 13)))
        i++;
    for (; *prefix; prefix++, i++) {
        if (i >= n_bytes)
            return false;
        if ((data[i] >= 'A' && data[i] <= 'Z' ? data[i] + 32 : data[i]) != (uint8_t)*prefix)
            return false;
    }
    return true;
}

static bool is_text(const uint8_t *data, uint64_t n_bytes)
{
    uint64_t n = EL_MIN(n_bytes, 512);

    for (uint64_t i = 0; i < n; i++)
        if ((data[i] < 32 && !(data[i] >= 9 && data[i] <= 13)) || data[i] == 127)
            return false;
    return true;
}

static bool is_zeros(const uint8_t *data, uint64_t n_bytes)
{
    uint64_t n = EL_MIN(n_bytes, 4096);

    for (uint64_t i = 0; i < n; i++)
        if (data[i])
            return false;
    return true;
}

/* A header length of 8 bytes, then the JSON of the header. */
static bool is_safetensors(const uint8_t *data, uint64_t n_bytes)
{
    return n_bytes >= 10 && el_rd64(data) < (UINT64_C(1) << 32) && data[8] == '{' && data[9] < 128;
}

static const char *binary_kind(const uint8_t *data, uint64_t n_bytes)
{
    static const struct {
        const char *prefix;
        size_t n;
        const char *says;
    } kinds[] = {
        {"PK\3\4", 4, "is a zip archive (PyTorch checkpoints are too): unpack it, or convert the checkpoint to GGUF"},
        {"\x1F\x8B", 2, "is compressed with gzip: unpack it first (gunzip)"},
        {"\xFD"
         "7zXZ",
         5, "is compressed with xz: unpack it first (unxz)"},
        {"\x28\xB5\x2F\xFD", 4, "is compressed with zstd: unpack it first (unzstd)"},
        {"BZh", 3, "is compressed with bzip2: unpack it first (bunzip2)"},
        {"7z\xBC\xAF", 4, "is a 7-Zip archive: unpack it first"},
        {"\x80\2", 2,
         "is a Python pickle (an old PyTorch checkpoint): convert it to GGUF first; never unpickle a "
         "file you do not trust"},
        {"\x80\3", 2, "is a Python pickle: a model must be a GGUF file"},
        {"\x80\4", 2, "is a Python pickle: a model must be a GGUF file"},
        {"\x80\5", 2, "is a Python pickle: a model must be a GGUF file"},
        {"lmgg", 4, "is in the GGML format of 2022: download the model as GGUF"},
        {"fmgg", 4, "is in the GGMF format of 2023: download the model as GGUF"},
        {"tjgg", 4, "is in the GGJT format of 2023: download the model as GGUF"},
        {"algg", 4, "is a GGLA adapter of 2023, not a model: download a model as GGUF"},
        {"FUGG", 4, "has the magic FUGG: it was written with swapped byte order; download a little-endian GGUF"},
        {"\x7F"
         "ELF",
         4, "is a program (ELF), not a model"},
        {"%PDF", 4, "is a PDF document, not a model"},
        {"\x89PNG", 4, "is a PNG image, not a model"},
        {"\x93NUMPY", 6, "is a NumPy array, not a model"},
        {"\x89HDF", 4, "is an HDF5 file (Keras models are): convert the model to GGUF first"},
    };

    for (size_t i = 0; i < EL_COUNT(kinds); i++)
        if (starts(data, n_bytes, kinds[i].prefix, kinds[i].n))
            return kinds[i].says;
    if (is_safetensors(data, n_bytes))
        return "is a safetensors file: download the model as GGUF, or convert it";
    return NULL;
}

static const char *text_kind(const uint8_t *data, uint64_t n_bytes)
{
    if (starts_text(data, n_bytes, "version https://git-lfs"))
        return "is a git-lfs pointer, the model itself was not downloaded: run 'git lfs pull' in its folder";
    if (starts_text(data, n_bytes, "<!doctype html") || starts_text(data, n_bytes, "<html"))
        return "is an HTML page, not a model: the download gave a web page (a login, an error, or the page about the "
               "file); download the file itself";
    if (starts_text(data, n_bytes, "<?xml"))
        return "is an XML document, not a model: the server probably answered with an error";
    if (is_text(data, n_bytes))
        return starts_text(data, n_bytes, "{") ? "is JSON text, not a model: the server probably answered with an error"
                                               : "is a text file, not a model";
    return NULL;
}

edgellm_status el_gguf_not_gguf(const uint8_t *data, uint64_t n_bytes, const char *file)
{
    const char *says;
    char first[20];

    if (n_bytes == 0)
        return el_fail(EDGELLM_EFORMAT, "%.200s is empty (0 bytes); download it again", file);
    if (is_zeros(data, n_bytes))
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s begins with zeros: its download or copy did not finish; download it again", file);
    says = text_kind(data, n_bytes);
    if (!says)
        says = binary_kind(data, n_bytes);
    if (says)
        return el_fail(EDGELLM_EFORMAT, "%.200s %s", file, says);
    for (size_t i = 0, n = 0; i < 4; i++)
        n += (size_t)snprintf(first + n, sizeof first - n, i ? " %02x" : "%02x", i < n_bytes ? data[i] : 0);
    return el_fail(EDGELLM_EFORMAT, "%.200s is not a GGUF file: it begins with %s instead of 47 47 55 46 ('GGUF')",
                   file, first);
}
