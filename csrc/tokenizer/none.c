/* none.c - vocabularies without text: "test" (names only, for models made of random weights) and "none". */
#include "tokenizer_impl.h"

static edgellm_status setup(el_tokenizer *t, const el_vocab_data *data)
{
    (void)t;
    (void)data;
    return EDGELLM_OK;
}

const el_family el_family_test = {"test", setup, NULL};
const el_family el_family_none = {"none", setup, NULL};
