-- Tells deltapush's dict socket of each new message, as chatmail relays do. Prefer deltapush.lua: it has a time limit.

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

-- The numbers by which deltapush knows the message again.
local function details(event)
    local format = '{"mailbox":%s,"uid":%.0f,"uid_validity":%.0f,"from":%s}'
    return format:format(quoted(event.mailbox), event.uid, event.uid_validity, quoted(event.from_address or ""))
end

function dovecot_lua_notify_begin_txn(user)
    return user
end

function dovecot_lua_notify_event_message_new(user, event)
    local mailbox = user:mailbox(event.mailbox)
    mailbox:open()
    local told, problem = pcall(mailbox.metadata_set, mailbox, "/private/messagenew", details(event))
    mailbox:free()
    if not told then
        dovecot.i_warning("deltapush was not told of a message: " .. tostring(problem))
    end
end

function dovecot_lua_notify_end_txn()
end
