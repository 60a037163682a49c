/* plugin.c - counts the guest's instructions, exactly, as a plugin of qemu-user: one addition per translated block.
 *   qemu-aarch64 -plugin plugin.so,out=FILE[,mark=NUMBER] PROGRAM ...
 * FILE gets a line with the number so far whenever the program makes the system call NUMBER, and one when it ends.
 * The additions are not atomic: count programs of one thread.
 * Debian ships no header for plugins, so the seven functions that are needed are declared here, as QEMU's documentation
 * of TCG plugins describes them (version 1 of the interface, QEMU 7.2). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
typedef uint64_t plugin_id;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*translated)(plugin_id, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op, void *counter, uint64_t n);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id id,
                                          void (*called)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                         uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_atexit_cb(plugin_id id, void (*ends)(plugin_id, void *), void *data);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { ADD_U64 };
static uint64_t n_instructions;
static int64_t mark = -1;
static FILE *out;

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &n_instructions, qemu_plugin_tb_n_insns(tb));
}

/* A system call ends its block, so everything before it has been added. */
static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == mark)
        fprintf(out, "%llu\n", (unsigned long long)n_instructions);
}

static void ends(plugin_id id, void *data)
{
    (void)id, (void)data;
    fprintf(out, "%llu\n", (unsigned long long)n_instructions);
    fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
        else if (strncmp(argv[i], "mark=", 5) == 0)
            mark = atoll(argv[i] + 5);
    if (!out)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    if (mark >= 0)
        qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, ends, NULL);
    return 0;
}
