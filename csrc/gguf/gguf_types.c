/* gguf_types.c - the tensor types a file can name and the geometry of their blocks.
 * Numbers and sizes: enum ggml_type in ggml.h and the block structs in ggml-common.h of ggml 0.20.2; the table is
 * what a loop over ggml_type_name, ggml_blck_size and ggml_type_size prints (names in capitals, as people write them).
 */
#include "gguf_internal.h"

static const struct {
    const char *name;
    uint16_t elements;
    uint16_t bytes;
} types[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},      [3] = {"Q4_1", 32, 20},
    [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},      [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 36},
    [10] = {"Q2_K", 256, 84},    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66}, [17] = {"IQ2_XS", 256, 74},
    [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},   [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},
    [22] = {"IQ2_S", 256, 82},   [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},        [29] = {"IQ1_M", 256, 56},
    [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},   [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},
    [40] = {"NVFP4", 64, 36},    [41] = {"Q1_0", 128, 18},    [42] = {"Q2_0", 64, 18},
};

bool el_gguf_type_size(uint32_t type, uint32_t *block_elements, uint32_t *block_bytes, const char **name)
{
    if (type >= EL_COUNT(types) || !types[type].name)
        return false;
    *block_elements = types[type].elements;
    *block_bytes = types[type].bytes;
    *name = types[type].name;
    return true;
}

bool el_gguf_type_removed(uint32_t type)
{
    return type == 4 || type == 5 || (type >= 31 && type <= 33) || (type >= 36 && type <= 38);
}

/* Bytes of one metadata value; 0 for strings, arrays and unknown numbers. */
uint32_t el_gguf_value_bytes(uint32_t type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

    return type < EL_COUNT(bytes) ? bytes[type] : 0;
}

const char *el_gguf_value_name(uint32_t type)
{
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};

    return type < EL_COUNT(names) ? names[type] : "unknown";
}
