package org.edgellm.chat;

import android.app.Activity;
import android.os.Bundle;
import android.widget.Button;
import android.widget.EditText;
import android.widget.LinearLayout;
import android.widget.ScrollView;
import android.widget.TextView;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** A question, an answer that streams, a button that stops it. */
public final class ChatActivity extends Activity {
    private final ExecutorService worker = Executors.newSingleThreadExecutor();
    private volatile long handle;
    private TextView answer;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        EditText question = new EditText(this);
        Button ask = new Button(this);
        Button stop = new Button(this);
        answer = new TextView(this);
        ask.setText("Ask");
        stop.setText("Stop");
        ask.setOnClickListener(view -> ask(question.getText().toString()));
        stop.setOnClickListener(view -> {
            if (handle != 0) {
                Native.stop(handle);
            }
        });
        ScrollView scroll = new ScrollView(this);
        scroll.addView(answer);
        LinearLayout column = new LinearLayout(this);
        column.setOrientation(LinearLayout.VERTICAL);
        column.addView(question);
        column.addView(ask);
        column.addView(stop);
        column.addView(scroll);
        setContentView(column);
        worker.execute(this::load);
    }

    private void load() {
        try {
            handle = Native.open(new File(getFilesDir(), "model.gguf").getPath(), 2048);
            show("ready\n");
        } catch (IllegalStateException error) {
            show(error.getMessage() + "\n");
        }
    }

    /** ChatML, as SmolLM2, Qwen and others use it. Typed control tokens count; chat.c shows how to keep them apart. */
    private void ask(String text) {
        String prompt = "<|im_start|>user\n" + text + "<|im_end|>\n<|im_start|>assistant\n";
        worker.execute(() -> {
            if (handle == 0) {
                return;
            }
            try {
                Native.answer(handle, prompt.getBytes(StandardCharsets.UTF_8), 256,
                        part -> show(new String(part, StandardCharsets.UTF_8)));
            } catch (IllegalStateException error) {
                show(error.getMessage());
            }
            show("\n");
        });
    }

    private void show(String text) {
        runOnUiThread(() -> answer.append(text));
    }

    @Override
    protected void onDestroy() {
        if (handle != 0) {
            Native.stop(handle);
        }
        worker.execute(() -> {
            if (handle != 0) {
                Native.close(handle);
                handle = 0;
            }
        });
        worker.shutdown();
        super.onDestroy();
    }
}
