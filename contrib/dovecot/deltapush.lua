-- Tells deltapush of each new message as Dovecot delivers it. For Dovecot 2.3 and 2.4, with the plugin push_notification_lua.
-- Set-up: docs/news-dovecot.md. Settings, both optional: the address of deltapush's hook, and a token for it.
--
-- A delivery never fails because of deltapush, and waits for it for one second at the most.

local TIME_LIMIT_MS = 1000
local url = "http://127.0.0.1:1981/v1/news"
local token = ""

-- A string of JSON. Where it is not UTF-8, a question mark stands for each byte outside of ASCII.
local utf8 = rawget(_G, "utf8")
local function quoted(text)
    if utf8 and not utf8.len(text) then
        text = text:gsub("[\128-\255]", "?")
    end
    local escaped = text:gsub('[%c"\\]', function(character)
        return string.format("\\u%04x", character:byte())
    end)
    return '"' .. escaped .. '"'
end

-- Each message in its own request: deltapush answers when the message is on its disk.
local function body(user, event)
    local fields = {
        '"name":' .. quoted(user.username),
        '"mailbox":' .. quoted(event.mailbox),
        string.format('"uid":%.0f,"uid_validity":%.0f', event.uid, event.uid_validity),
    }
    -- Empty if the message has no From, or several.
    local from = event.from_address or event.from
    if from and from ~= "" then
        table.insert(fields, '"from":' .. quoted(from))
    end
    return "{" .. table.concat(fields, ",") .. "}"
end

-- Dovecot 2.4 refuses the names of 2.3. Lua's HTTP client has no time limit of its own.
local function new_client()
    local known, client = pcall(dovecot.http.client, {
        request_absolute_timeout_msecs = TIME_LIMIT_MS,
        connect_timeout_msecs = TIME_LIMIT_MS,
        max_attempts = 1,
        no_auto_redirect = true,
    })
    if known then
        return client
    end
    return dovecot.http.client({
        request_absolute_timeout = TIME_LIMIT_MS .. "ms",
        connect_timeout = TIME_LIMIT_MS .. "ms",
        request_max_attempts = 1,
        auto_redirect = "no",
    })
end

local function post(user, event)
    local request = new_client():request({ url = url, method = "POST" })
    request:add_header("Content-Type", "application/json")
    if token ~= "" then
        request:add_header("Authorization", "Bearer " .. token)
    end
    request:set_payload(body(user, event))
    local response = request:submit()
    -- Statuses from 9000 on are Dovecot's own: no connection, no answer in time.
    if response:status() ~= 200 then
        error(response:status() .. " " .. response:reason(), 0)
    end
end

local function take_settings(settings)
    url = settings.deltapush_url or url
    -- A file ends with a line break.
    token = (settings.deltapush_token or token):gsub("%s+", "")
end

-- Dovecot 2.4 hands over the settings here, 2.3 keeps them with the user.
function script_init(settings)
    if type(settings) == "table" then
        take_settings(settings)
    end
    return 0
end

function dovecot_lua_notify_begin_txn(user)
    if user.plugin_getenv then
        take_settings({
            deltapush_url = user:plugin_getenv("deltapush_url"),
            deltapush_token = user:plugin_getenv("deltapush_token"),
        })
    end
    return user
end

function dovecot_lua_notify_event_message_new(user, event)
    local told, problem = pcall(post, user, event)
    if not told then
        dovecot.i_warning("deltapush was not told of a message: " .. url .. ": " .. tostring(problem))
    end
end

function dovecot_lua_notify_end_txn()
end
