-- Tells deltapush's dict socket of each new message, as chatmail relays do. Prefer deltapush.lua: it has a time limit.

function dovecot_lua_notify_begin_txn(user)
    return user
end

function dovecot_lua_notify_event_message_new(user, event)
    local mailbox = user:mailbox(event.mailbox)
    mailbox:open()
    local told, problem = pcall(mailbox.metadata_set, mailbox, "/private/messagenew", event.from_address or "")
    mailbox:free()
    if not told then
        dovecot.i_warning("deltapush was not told of a message: " .. tostring(problem))
    end
end

function dovecot_lua_notify_end_txn()
end
