#!/bin/sh
# sanitize.sh [address|thread]... - builds everything with sanitizers, runs C and Python tests with both CPU backends,
# and ends with a summary; exit code 0 when nothing was found. BUILD (a folder), PYTHON, CMAKE_ARGS and JOBS may be set.
#   address   AddressSanitizer and UndefinedBehaviorSanitizer: the whole suite. Leaks are not looked for in Python.
#   thread    ThreadSanitizer: what starts threads. workers.h says what it can judge of workers that redo chunks.
# Tests that cannot work so are marked `unsanitized`, with the reason, which pytest prints. Every process writes its
# reports to a file, since tests and pytest may keep what goes to stderr; one report fails the run. Nothing is suppressed
# but what ThreadSanitizer says of ggml's own files (tests/tsan.txt).
set -u
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build/sanitize}
PYTHON=${PYTHON:-.venv/bin/python}
JOBS=${JOBS:-2}
case $PYTHON in */*) PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON") ;; esac
results=$BUILD/results.txt
mkdir -p "$BUILD"
: >"$results"

# note NAME STATUS LOGS
note()
{
    found=$(cat "$3".* 2>/dev/null | grep -c -E 'ERROR: AddressSanitizer|WARNING: ThreadSanitizer|runtime error:')
    if [ "$2" = 0 ] && [ "$found" = 0 ]; then verdict=clean; else verdict=FAILED; fi
    printf '%-44s %s (exit %s, %s reports) after %s s\n' "$1" "$verdict" "$2" "$found" "$(($(date +%s) - began))" >>"$results"
    if [ "$found" != 0 ]; then cat "$3".*; fi
}

# run KIND BACKEND NAME COMMAND... : with the sanitizer's settings; PRELOAD is loaded first
run()
{
    kind=$1 backend=$2 name=$3
    shift 3
    logs=$PWD/$BUILD/$kind/reports_$name-$backend
    rm -f "$logs".*
    began=$(date +%s)
    options=exitcode=66:log_path=$logs
    echo "== $kind: $name with the backend $backend"
    env EDGELLM_CPU_BACKEND="$backend" \
        ASAN_OPTIONS="$options:detect_leaks=${LEAKS:-0}:allocator_may_return_null=1" \
        UBSAN_OPTIONS="print_stacktrace=1:log_path=$logs" \
        TSAN_OPTIONS="$options:suppressions=$PWD/tests/tsan.txt:second_deadlock_stack=1" \
        LD_PRELOAD="${PRELOAD:-}" "$@"
    note "$kind: $name, $backend" $? "$logs"
}

# python KIND BACKEND NAME PYTEST-ARGUMENTS... : OpenBLAS has threads that no sanitizer knows
python()
{
    kind=$1 backend=$2 name=$3
    shift 3
    run "$kind" "$backend" "$name" env EDGELLM_SANITIZED="$kind" PYTHONPATH="$PWD/$BUILD/$kind/python" \
        OPENBLAS_NUM_THREADS=1 "$PYTHON" -m pytest -q -p no:cacheprovider "$@"
}

# package FOLDER : the Python package with what was built there and nothing else that may lie in src
package()
{
    rm -rf "$1/python" && mkdir -p "$1/python" && cp -r src/edgellm "$1/python/" &&
        rm -rf "$1/python/edgellm/lib" "$1"/python/edgellm/tensors/*.so && mkdir "$1/python/edgellm/lib" &&
        cp "$1"/_edgellm_*.py "$1/python/edgellm/" && cp "$1"/tensors/*.so "$1/python/edgellm/tensors/" &&
        cp "$1"/lib/libedgellm.so "$1"/lib/edgellm_*.so "$1/python/edgellm/lib/" &&
        mkdir "$1/python/edgellm/models" "$1/python/edgellm/cross" && cp models/catalog.toml "$1/python/edgellm/models/" &&
        cp cross/targets.toml "$1/python/edgellm/cross/"
}

build()
{
    # shellcheck disable=SC2086
    cmake -S . -B "$BUILD/$1" -G Ninja -DEDGELLM_DEVELOPER=ON -DEDGELLM_IN_SOURCE=OFF -DEDGELLM_SANITIZE="$2" \
        -DEDGELLM_TENSORS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE="$PYTHON" ${CMAKE_ARGS:-} \
        >"$BUILD/$1.txt" 2>&1 && cmake --build "$BUILD/$1" -j "$JOBS" >>"$BUILD/$1.txt" 2>&1 && package "$BUILD/$1"
    status=$?
    if [ $status != 0 ]; then tail -n 30 "$BUILD/$1.txt"; fi
    began=$(date +%s)
    [ $status = 0 ] || note "$1: build" $status none
    return $status
}

library() { "${CC:-cc}" -print-file-name="$1"; }

address()
{
    build address address,undefined || return
    LEAKS=1 run address edgellm c ctest --test-dir "$BUILD/address" --output-on-failure --parallel "$JOBS"
    PRELOAD=$(library libasan.so):$(library libubsan.so):$(library libstdc++.so) # exceptions of edgellm.tensors
    # Wheels for other machines hold other libraries.
    python address edgellm suite -m 'not network and not models and not cross' tests
    python address ggml models -m 'not network and not models and not slow' tests/parity tests/unit/test_llm.py \
        tests/unit/test_threads.py tests/unit/test_native.py
    PRELOAD=
}

thread()
{
    build thread thread || return
    # The other C tests have one thread.
    run thread edgellm c ctest --test-dir "$BUILD/thread" --output-on-failure -R '^test_(workers|base|ggml_cpu)$'
    PRELOAD=$(library libtsan.so):$(library libstdc++.so)
    python thread edgellm models -m 'not network and not models and not slow' tests/unit/test_threads.py \
        tests/unit/test_llm.py tests/unit/test_native.py tests/parity --ignore tests/parity/test_bits.py
    # Of the same bits with any number of threads only some: all types and families take longer than the rest.
    python thread edgellm bits -m 'not network and not models and not slow' tests/parity/test_bits.py \
        -k 'q4_k or q8_0 or gemma3'
    python thread ggml models -m 'not network and not models and not slow' tests/unit/test_threads.py \
        tests/parity/test_parity.py
    PRELOAD=
}

for kind in ${*:-address thread}; do $kind; done
echo
cat "$results"
if grep -q FAILED "$results"; then exit 1; fi
