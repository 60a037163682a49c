/* plugin.c - counts the guest's instructions, exactly, as a plugin of qemu-user: one addition per translated block.
 *   qemu-aarch64 -plugin plugin.so,out=FILE PROGRAM ...      FILE gets the number when the program ends
 * The additions are not atomic: count programs of one thread.
 * Debian ships no header for plugins, so the six functions that are needed are declared here, as QEMU's documentation
 * of TCG plugins describes them (version 1 of the interface, QEMU 7.2). */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct qemu_plugin_tb;
typedef uint64_t plugin_id;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*translated)(plugin_id, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op, void *counter, uint64_t n);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*ends)(plugin_id, void *), void *data);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { ADD_U64 };
static uint64_t n_instructions;
static char out[4096];

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &n_instructions, qemu_plugin_tb_n_insns(tb));
}

static void ends(plugin_id id, void *data)
{
    FILE *file = fopen(out, "w");

    (void)id, (void)data;
    if (file) {
        fprintf(file, "%llu\n", (unsigned long long)n_instructions);
        fclose(file);
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            snprintf(out, sizeof out, "%s", argv[i] + 4);
    if (!out[0])
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ends, NULL);
    return 0;
}
