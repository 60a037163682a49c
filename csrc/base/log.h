/* log.h - messages kept in a ring until the host takes them; silent by default. */
#ifndef EL_LOG_H
#define EL_LOG_H

#include "error.h"

enum { EL_LOG_ERROR = 1, EL_LOG_WARN = 2, EL_LOG_INFO = 3, EL_LOG_DEBUG = 4 };
void el_log(int level, const char *fmt, ...) EL_PRINTF(2, 3);
int el_log_level(void);

#endif
