/* vocab.h - opens the tokenizer that a GGUF file describes. */
#ifndef EL_VOCAB_H
#define EL_VOCAB_H

#include "gguf.h"
#include "tokenizer.h"

/* The file must outlive the tokenizer, whose pieces point into it. Errors: EFORMAT (a key that is missing, of a wrong
 * type, of a wrong length or out of range), EUNSUPPORTED (a tokenizer we lack), ENOMEM. */
edgellm_status el_vocab_from_gguf(el_tokenizer **out, const el_gguf *file);

#endif
