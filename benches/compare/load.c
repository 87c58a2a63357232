// The load of the comparison: one thread, keep-alive HTTP/1.1, and latencies counted from when a request was due.
// Its own because the comparison needs three things together that no packaged tool has: a fixed rate whose late requests
// count as late (no coordinated omission), a token that was never used before in every request, and little CPU.
//
//   load PORT METHOD PATH BODY|- TOKENS CONNECTIONS SECONDS RATE REUSE
//
// TOKENS has one token a line; REUSE 1 begins again at its end, 0 stops there. RATE 0: each connection sends as soon as
// it has its answer. In PATH and BODY `#` is a number below a million that is another one in each call, `%` one below a
// hundred, `@` an amount up to 50.00. Prints one line of JSON.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
#define LARGEST (64 * 1024)  // a request or an answer, in bytes
#define PRECISION 512        // steps of the histogram between two powers of two
#define WARM (SECOND / 5)    // what is sent at first is not among the latencies

struct connection {
    int socket;
    int busy;        // a request is out
    int partly;      // a part of `out` was not taken yet
    uint64_t due;    // when that request should have been sent
    size_t sent, to_send, received;
    char out[LARGEST], in[LARGEST + 1];
};

static int port, timer, poller, reuse;
static uint64_t start, end, interval;
static const char *method, *path_template, *body_template;
static char **tokens;
static size_t token_count, next_token;
static struct connection *connections, **idle;
static size_t idle_count, open_calls;
static uint64_t first_number;  // so that a later run does not repeat the calls of this one
static uint64_t issued, answered, measured, refused, broken, reconnected;
static uint64_t histogram[64 * PRECISION], slowest;
static char first_refusal[600];

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

// HDR-like: exact below 2 * PRECISION ns, then to 1 / PRECISION of the value.
static size_t bucket(uint64_t value) {
    if (value < 2 * PRECISION) return value;
    int shift = 63 - __builtin_clzll(value) - 9;
    return (size_t)shift * PRECISION + (size_t)(value >> shift);
}

static uint64_t value_of(size_t index) {
    if (index < 2 * PRECISION) return index;
    size_t shift = index / PRECISION - 1;
    return (uint64_t)(index - shift * PRECISION) << shift;
}

static double percentile(double part) {
    uint64_t wanted = (uint64_t)(part * (double)measured), seen = 0;
    for (size_t index = 0; index < sizeof histogram / sizeof *histogram; index++) {
        seen += histogram[index];
        if (seen > wanted) return (double)value_of(index) / 1e3;
    }
    return (double)slowest / 1e3;
}

static void connect_anew(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (c->socket < 0 || connect(c->socket, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    int one = 1;
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->socket, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->socket, &event) < 0) die("epoll_ctl");
    c->busy = c->partly = 0;
    c->received = 0;
}

static void flush(struct connection *c) {
    while (c->sent < c->to_send) {
        ssize_t count = send(c->socket, c->out + c->sent, c->to_send - c->sent, MSG_NOSIGNAL);
        if (count < 0) break;
        c->sent += (size_t)count;
    }
    int partly = c->sent < c->to_send;
    if (partly != c->partly) {
        struct epoll_event event = {.events = EPOLLIN | (partly ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_MOD, c->socket, &event);
        c->partly = partly;
    }
}

static int tokens_left(void) {
    return reuse || next_token < token_count;
}

static const char *filled(char *out, size_t room, const char *template, uint64_t number) {
    size_t length = 0;
    for (; *template && length + 16 < room; template++) {
        unsigned cents = (unsigned)(number / 100 % 5000 + 1);
        if (*template == '#') length += (size_t)sprintf(out + length, "%lu", number % 1000000 + 1);
        else if (*template == '%') length += (size_t)sprintf(out + length, "%lu", number % 100 + 1);
        else if (*template == '@') length += (size_t)sprintf(out + length, "%u.%02u", cents / 100, cents % 100);
        else out[length++] = *template;
    }
    out[length] = 0;
    return out;
}

static void request(struct connection *c, uint64_t due) {
    const char *token = tokens[next_token++ % token_count];
    char path_room[1000], body_room[1000];
    const char *path = filled(path_room, sizeof path_room, path_template, first_number + issued);
    const char *body = filled(body_room, sizeof body_room, body_template, first_number + issued);
    size_t length = strlen(body);
    int size = length
        ? snprintf(c->out, LARGEST, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"
                   "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", method, path, port, token, length, body)
        : snprintf(c->out, LARGEST, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n\r\n",
                   method, path, port, token);
    c->to_send = (size_t)size;
    c->sent = 0;
    c->received = 0;
    c->busy = 1;
    c->due = due;
    issued++;
    open_calls++;
    flush(c);
}

// Sends what is due on connections that are free; without a rate that is one request for each of them.
static void send_due(void) {
    while (idle_count && tokens_left()) {
        uint64_t at = now(), due = interval ? start + issued * interval : at;
        if (due > at || at >= end) return;
        request(idle[--idle_count], due);
    }
}

// The bytes of the whole answer at the beginning of `in`, or 0 while some are missing.
static size_t whole(struct connection *c, int *closes) {
    c->in[c->received] = 0;
    char *head_end = strstr(c->in, "\r\n\r\n");
    if (!head_end) return 0;
    size_t head = (size_t)(head_end - c->in) + 4;
    char kept = c->in[head];
    c->in[head] = 0;
    char *length = strcasestr(c->in, "\r\ncontent-length:");
    int chunked = strcasestr(c->in, "\r\ntransfer-encoding: chunked") != NULL;
    *closes = strcasestr(c->in, "\r\nconnection: close") != NULL;
    size_t wanted = length ? head + strtoul(length + 17, NULL, 10) : head;
    c->in[head] = kept;
    if (chunked) return c->received >= head + 5 && !memcmp(c->in + c->received - 5, "0\r\n\r\n", 5) ? c->received : 0;
    return c->received >= wanted ? wanted : 0;
}

static void done(struct connection *c, int closes) {
    uint64_t at = now();
    int good = !strncmp(c->in, "HTTP/1.1 2", 10);
    if (!good && !refused++) snprintf(first_refusal, sizeof first_refusal, "%.500s", c->in);
    answered++;
    open_calls--;
    if (good && c->due >= start + WARM && at < end + SECOND) {
        uint64_t took = at - c->due;
        histogram[bucket(took)]++;
        measured++;
        if (took > slowest) slowest = took;
    }
    c->busy = 0;
    if (closes) {
        close(c->socket);
        connect_anew(c);
        reconnected++;
    }
    idle[idle_count++] = c;
}

static void receive(struct connection *c) {
    for (;;) {
        ssize_t count = recv(c->socket, c->in + c->received, LARGEST - c->received, 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (count <= 0) {
            close(c->socket);
            if (c->busy) {
                broken++;
                open_calls--;
                idle[idle_count++] = c;
            }
            connect_anew(c);
            reconnected++;
            return;
        }
        c->received += (size_t)count;
        int closes = 0;
        if (c->busy && whole(c, &closes)) {
            done(c, closes);
            return;
        }
        if (c->received == LARGEST) die("an answer is too large");
    }
}

static void read_tokens(const char *file) {
    FILE *stream = fopen(file, "r");
    if (!stream) die(file);
    size_t room = 0, capacity = 0;
    char *line = NULL;
    ssize_t length;
    while ((length = getline(&line, &room, stream)) > 0) {
        if (line[length - 1] == '\n') line[length - 1] = 0;
        if (token_count == capacity) tokens = realloc(tokens, (capacity = capacity * 2 + 64) * sizeof *tokens);
        tokens[token_count++] = strdup(line);
    }
    fclose(stream);
    if (!token_count) die("no tokens");
}

static void wake_when_due(void) {
    uint64_t at = now(), due = start + issued * interval;
    uint64_t wait = due > at ? due - at : 1;
    struct itimerspec in = {.it_value = {.tv_sec = (time_t)(wait / SECOND), .tv_nsec = (long)(wait % SECOND)}};
    timerfd_settime(timer, 0, &in, NULL);
}

static void run(void) {
    struct epoll_event events[256];
    uint64_t give_up = end + 5 * SECOND;
    for (;;) {
        send_due();
        uint64_t at = now();
        if ((at >= end || !tokens_left()) && !open_calls) break;
        if (at >= give_up) break;
        if (interval && at < end && idle_count) wake_when_due();
        int count = epoll_wait(poller, events, 256, 100);
        for (int index = 0; index < count; index++) {
            struct connection *c = events[index].data.ptr;
            if (!c) {
                uint64_t times;
                if (read(timer, &times, sizeof times) < 0) continue;
                continue;
            }
            if (events[index].events & EPOLLOUT) flush(c);
            if (events[index].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
            send_due();
        }
    }
}

static void print_text(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') printf("\\%c", *text);
        else if ((unsigned char)*text < ' ') printf("\\u%04x", *text);
        else putchar(*text);
    }
    putchar('"');
}

int main(int count, char **argument) {
    if (count != 10) {
        fprintf(stderr, "load PORT METHOD PATH BODY|- TOKENS CONNECTIONS SECONDS RATE REUSE\n");
        return 2;
    }
    port = atoi(argument[1]);
    method = argument[2];
    path_template = argument[3];
    body_template = strcmp(argument[4], "-") ? argument[4] : "";
    read_tokens(argument[5]);
    size_t many = (size_t)atoi(argument[6]);
    double seconds = atof(argument[7]), rate = atof(argument[8]);
    reuse = atoi(argument[9]);
    interval = rate > 0 ? (uint64_t)((double)SECOND / rate) : 0;

    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    connections = calloc(many, sizeof *connections);
    idle = calloc(many, sizeof *idle);
    for (size_t index = 0; index < many; index++) {
        connect_anew(&connections[index]);
        idle[idle_count++] = &connections[index];
    }
    first_number = (uint64_t)time(NULL) * 50021;
    start = now();
    end = start + (uint64_t)(seconds * (double)SECOND);
    run();
    double took = (double)(now() - start) / (double)SECOND;

    printf("{\"requests\":%lu,\"seconds\":%.4f,\"measured\":%lu,\"refused\":%lu,\"broken\":%lu,\"unanswered\":%lu,"
           "\"reconnected\":%lu,\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f,\"behind\":%ld,\"refusal\":",
           answered, took, measured, refused, broken, open_calls, reconnected, percentile(0.50), percentile(0.99),
           percentile(0.999), (double)slowest / 1e3, interval ? (long)((uint64_t)(seconds * rate) - issued) : 0L);
    print_text(first_refusal);
    puts("}");
    return 0;
}
