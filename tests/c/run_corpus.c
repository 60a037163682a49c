/* run_corpus.c - feeds every file of the folders or files named on the command line to a libFuzzer target, so that a
 * saved corpus is checked by builds without libFuzzer too. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    long n = -1;
    int ok = 0;

    if (f && fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0) {
        data = malloc(n > 0 ? (size_t)n : 1); /* exactly the size: a read beyond it shows in the sanitizer */
        ok = data && fread(data, 1, (size_t)n, f) == (size_t)n;
    }
    if (f)
        fclose(f);
    if (ok)
        LLVMFuzzerTestOneInput(data, (size_t)n);
    else
        fprintf(stderr, "%s: cannot be read\n", path);
    free(data);
    return ok;
}

int main(int argc, char **argv)
{
    size_t n_files = 0;

    for (int i = 1; i < argc; i++) {
        struct stat info;
        DIR *dir;
        const struct dirent *entry;
        char path[4096];

        if (stat(argv[i], &info) != 0 || !S_ISDIR(info.st_mode)) {
            if (!run_file(argv[i]))
                return 1;
            n_files++;
            continue;
        }
        dir = opendir(argv[i]);
        while (dir && (entry = readdir(dir)) != NULL) {
            if (entry->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            if (!run_file(path))
                return 1;
            n_files++;
        }
        if (dir)
            closedir(dir);
    }
    printf("%zu inputs\n", n_files);
    if (n_files == 0)
        fprintf(stderr, "no corpus: name a folder with saved inputs\n");
    return n_files == 0;
}
