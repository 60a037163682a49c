/* utf8.c - decode, encode, escape for messages. */
#include "utf8.h"

int el_utf8_next(const char *s, size_t n, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)s;
    unsigned char low = 0x80, high = 0xBF; /* allowed range of the second byte */
    uint32_t value;
    int length;

    if (u[0] < 0x80) {
        *cp = u[0];
        return 1;
    }
    if (u[0] >= 0xC2 && u[0] <= 0xDF) {
        length = 2;
        value = u[0] & 0x1F;
    } else if (u[0] >= 0xE0 && u[0] <= 0xEF) {
        length = 3;
        value = u[0] & 0x0F;
        if (u[0] == 0xE0)
            low = 0xA0;
        if (u[0] == 0xED)
            high = 0x9F;
    } else if (u[0] >= 0xF0 && u[0] <= 0xF4) {
        length = 4;
        value = u[0] & 0x07;
        if (u[0] == 0xF0)
            low = 0x90;
        if (u[0] == 0xF4)
            high = 0x8F;
    } else {
        return 0;
    }
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= n)
            return -(length - i);
        if (u[i] < low || u[i] > high)
            return 0;
        value = value << 6 | (u[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    *cp = value;
    return length;
}

int el_utf8_put(char out[4], uint32_t cp)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

void el_utf8_escape(char *out, size_t cap, const char *s, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    size_t used = 0;

    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        int length = el_utf8_next(s + i, n - i, &cp);
        int visible = length > 0 && cp >= 0x20 && cp != 0x7F && !(cp >= 0x80 && cp < 0xA0);

        if (used + 5 > cap)
            break;
        if (visible) {
            for (int k = 0; k < length; k++)
                out[used++] = s[i + (size_t)k];
            i += (size_t)length;
        } else {
            unsigned char byte = (unsigned char)s[i++];
            out[used++] = '\\';
            out[used++] = 'x';
            out[used++] = hex[byte >> 4];
            out[used++] = hex[byte & 15];
        }
    }
    if (cap > 0)
        out[used] = 0;
}
