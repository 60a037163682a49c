package org.edgellm.chat;

/** The calls of native.c. One thread at a time per handle, but for stop. */
final class Native {
    interface Listener {
        void text(byte[] utf8);
    }

    static {
        System.loadLibrary("chat");
    }

    private Native() {}

    static native long open(String path, int contextTokens);

    static native void answer(long handle, byte[] prompt, int maxTokens, Listener listener);

    static native void stop(long handle);

    static native void close(long handle);
}
