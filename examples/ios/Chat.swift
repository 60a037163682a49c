// Chat.swift - a model's answer, streamed, for SwiftUI; nothing but edgellm.h underneath.
import Foundation
import edgellm

final class Chat: ObservableObject {
    @Published private(set) var answer = ""
    private var model: OpaquePointer?
    private var engine: OpaquePointer?
    private var sequence: Int32 = 0
    private let queue = DispatchQueue(label: "edgellm")  // an engine takes one thread at a time

    init(path: String, context: Int32 = 2048) {
        var options = edgellm_engine_options()
        edgellm_engine_options_init(&options)
        options.n_seqs = 1
        options.n_ctx = context
        if edgellm_model_open(&model, path) != EDGELLM_OK || edgellm_engine_new(&engine, model, &options) != EDGELLM_OK
            || edgellm_seq_open(engine, &sequence) != EDGELLM_OK
        {
            answer = String(cString: edgellm_last_error())
        }
    }

    deinit {
        edgellm_engine_free(engine)
        edgellm_model_free(model)
    }

    /// From any thread.
    func stop() {
        if let engine { edgellm_engine_cancel(engine) }
    }

    /// ChatML, as SmolLM2, Qwen and others use it. Typed control tokens count; chat.c shows how to keep them apart.
    func ask(_ question: String, maxTokens: Int32 = 256) {
        let prompt = "<|im_start|>user\n\(question)<|im_end|>\n<|im_start|>assistant\n"
        answer = ""
        queue.async { [self] in
            guard engine != nil else { return }
            if run(prompt, maxTokens) != EDGELLM_OK { show(String(cString: edgellm_last_error())) }
        }
    }

    private func run(_ prompt: String, _ maxTokens: Int32) -> edgellm_status {
        var ids = [Int32](repeating: 0, count: prompt.utf8.count + 8)
        var count = 0
        let flags = UInt32(EDGELLM_PARSE_SPECIAL.rawValue)
        var status = edgellm_tokenize(
            edgellm_model_vocab(model), prompt, prompt.utf8.count, flags, &ids, ids.count, &count)
        if status != EDGELLM_OK { return status }
        var sampling = edgellm_sampling()
        edgellm_sampling_init(&sampling)
        sampling.max_tokens = maxTokens
        status = edgellm_seq_sample(engine, sequence, &sampling, ids, count)
        if status == EDGELLM_OK { status = compute(Array(ids[..<min(count, ids.count)])) }
        while status == EDGELLM_OK {
            var next = edgellm_sampled()
            status = edgellm_step_sampled(engine, 0, &next)
            if status != EDGELLM_OK { return status }
            deliver()
            if next.finish != 0 { return EDGELLM_OK }
            status = compute([next.token])
        }
        return status == EDGELLM_ECANCELLED ? EDGELLM_OK : status
    }

    private func compute(_ tokens: [Int32]) -> edgellm_status {
        var start = 0
        while start < tokens.count {
            let end = min(start + 256, tokens.count)
            let status = tokens[start..<end].withUnsafeBufferPointer { part -> edgellm_status in
                var item = edgellm_item()
                item.seq = sequence
                item.tokens = part.baseAddress
                item.n_tokens = Int32(part.count)
                item.outputs = end == tokens.count ? 1 : 0
                item.sample = end == tokens.count ? 1 : 0
                let begun = edgellm_step_begin(engine, &item, 1)
                return begun == EDGELLM_OK ? edgellm_step_run(engine, 0) : begun
            }
            if status != EDGELLM_OK { return status }
            start = end
        }
        return EDGELLM_OK
    }

    private func deliver() {
        var bytes = [UInt8](repeating: 0, count: 256)
        while true {
            var count = 0
            let status = bytes.withUnsafeMutableBytes {
                edgellm_seq_take_text(engine, sequence, $0.bindMemory(to: CChar.self).baseAddress, 256, &count)
            }
            if status != EDGELLM_OK || count == 0 { return }
            show(String(decoding: bytes[..<count], as: UTF8.self))
        }
    }

    private func show(_ text: String) {
        DispatchQueue.main.async { self.answer += text }
    }
}
