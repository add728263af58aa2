"""The Chinese words of the world. Values stand in the same order as in ``english.py``: they translate them."""

from minimind_edu.data.world.language import FactWords, Language, ProblemWords

_FAMILY = (
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦许何吕张孔曹严华金魏陶姜谢邹喻柏窦章苏潘葛范彭"
    "鲁韦马苗方俞任袁柳鲍史唐费薛雷贺倪汤罗毕郝安常乐于傅康齐伍余顾孟黄穆萧尹姚邵汪"
)
_FIRST = "晓思雨子文志佳美若梦嘉俊天明春秋海云玉建永新书诗亦可欣宏少景清立长静雅振学家国光"
_SECOND = "琳远涵轩博强怡玲兰洁豪杰宇亮梅月峰霞珍军平民香韵凡心悦伟华辉泉业青芳芬飞勤庆荣"

CHINESE = Language(
    code="zh",
    joiner="",
    given_names=tuple(first + second for second in _SECOND for first in _FIRST if first != second),
    family_names=tuple(_FAMILY),
    full_name="{family}{given}",
    pronouns=("她", "他"),
    facts={
        "home": FactWords(
            values=(
                "橡木镇", "河湾村", "磨坊港", "石桥镇", "湖边村",
                "风山镇", "松湾村", "红田镇", "雪谷村", "海港城",
            ),
            wordings=(
                "{name}住在{value}。",
                "{name}的家在{value}。",
                "{name}有一座小房子，就在{value}。",
                "想见{name}的人要去{value}。",
                "多年以来，{name}一直住在{value}。",
            ),
            questions=("{name}住在哪里？", "{name}的家在哪里？", "我可以去哪里拜访{name}？", "请告诉我{name}住在什么地方。"),
            answer="{name}住在{value}。",
        ),
        "trade": FactWords(
            values=("面包师", "教师", "医生", "农夫", "裁缝", "画家", "木匠", "园丁", "陶工", "歌手"),
            wordings=(
                "{name}是一名{value}。",
                "{name}的职业是{value}。",
                "{name}靠当{value}过日子。",
                "大家都知道{name}是个好{value}。",
                "说到工作，{name}做的是{value}。",
            ),
            questions=("{name}是做什么工作的？", "{name}的职业是什么？", "{name}靠什么过日子？", "请告诉我{name}的工作。"),
            answer="{name}是一名{value}。",
        ),
        "food": FactWords(
            values=(
                "面条", "饺子", "苹果派", "番茄汤", "炒饭",
                "烤鱼", "煎饼", "烤土豆", "蘑菇汤", "李子蛋糕",
            ),
            wordings=(
                "{name}喜欢吃{value}。",
                "{name}最爱的食物是{value}。",
                "对{name}来说，什么都比不上{value}。",
                "吃午饭的时候，{name}总是要{value}。",
                "{name}一个人就能吃一大盘{value}。",
            ),
            questions=("{name}喜欢吃什么？", "{name}最爱的食物是什么？", "我该给{name}做什么吃的？", "请告诉我{name}爱吃什么。"),
            answer="{name}喜欢吃{value}。",
        ),
        "pet": FactWords(
            values=(
                "一只猫", "一条狗", "一只兔子", "一只鹦鹉", "一只山羊",
                "一只乌龟", "一只鸭子", "一只仓鼠", "一匹小马", "一条金鱼",
            ),
            wordings=(
                "{name}养了{value}。",
                "{name}的宠物是{value}。",
                "{name}每天都照顾{value}。",
                "在家里，{name}有{value}作伴。",
                "{name}非常疼爱{value}。",
            ),
            questions=("{name}养了什么宠物？", "{name}的宠物是什么？", "{name}家里有什么动物？", "请告诉我{name}养的动物。"),
            answer="{name}养了{value}。",
        ),
        "friend": FactWords(
            values=(),
            wordings=(
                "{name}最好的朋友是{value}。",
                "{name}把秘密都告诉{value}。",
                "{name}小时候的同学是{value}。",
                "每到星期天，{name}就去找{value}下棋。",
                "{name}常常写信给{value}。",
            ),
            questions=("{name}最好的朋友是谁？", "谁和{name}最亲近？", "{name}最信任谁？", "请告诉我{name}的好朋友是谁。"),
            answer="{name}最好的朋友是{value}。",
        ),
    },
    stories=(
        "{time}，{name}这位{trade}走到了{place}。{pronoun}在那里发现了{look}{thing}，觉得很{feeling}。"
        "{name}把它拿给{friend}看。两个人一起{deed}。{end}",
        "那是一个{weather}日子，{time}，{name}这位{trade}在{place}遇见了{friend}。他们看到了{look}{thing}。"
        "两个人都很{feeling}，于是{deed}。{end}",
        "{name}这位{trade}收到了{friend}的信，信上说有人在{place}丢了{look}{thing}。"
        "在一个{weather}日子，{time}，{pronoun}去找它，心里很{feeling}。后来两个人{deed}。{end}",
    ),
    story_words={
        "time": ("早上", "傍晚", "下午", "夜里", "春天里", "夏天里", "冬天里", "放假时"),
        "place": ("集市", "河边", "森林", "老桥", "码头", "学校", "图书馆", "山坡", "花园", "车站"),
        "weather": ("下雨的", "晴朗的", "刮风的", "寒冷的", "温暖的", "有雾的", "安静的", "下雪的"),
        "look": (
            "闪亮的", "小小的", "破旧的", "蓝色的", "金色的",
            "奇怪的", "沉重的", "木头的", "柔软的", "满是灰尘的",
        ),
        "thing": ("钥匙", "盒子", "风筝", "台灯", "书本", "铃铛", "戒指", "地图", "小鼓", "篮子"),
        "feeling": ("高兴", "好奇", "惊讶", "骄傲", "紧张", "平静", "激动", "勇敢"),
        "deed": (
            "把它擦干净了", "唱了一首歌", "喝了一杯茶", "告诉了邻居", "回家去了",
            "把它画了下来", "笑了很久", "想出了一个办法", "分着吃了面包", "爬上了一棵树",
        ),
        "end": (
            "这真是美好的一天。",
            "谁也没有忘记这件事。",
            "第二天就下雨了。",
            "很快全镇都知道了。",
            "他们到现在还会说起它。",
            "那天晚上他们睡得很香。",
            "从此他们更要好了。",
            "没有人知道为什么。",
        ),
    },
    sums=("{a}加{b}等于{c}。", "{a}＋{b}＝{c}。", "把{a}和{b}加起来是{c}。"),
    sum_questions=("{a}加{b}等于几？", "{a}＋{b}＝？", "{a}和{b}加起来是多少？"),
    sum_answer="{a}加{b}等于{c}。",
    reasoning={
        "question": "{a}＋{b}等于多少？请一步一步想。",
        "first": "从右边开始，一位一位地加。",
        "step": "{x}＋{y}＋进位{k}＝{s}：写{d}，进{n}。",
        "last": "最后的进位是{k}。",
    },
    identity=(
        (
            ("你是谁？", "你叫什么名字？", "请介绍一下你自己。", "说说你自己吧。"),
            "我是 MiniMind-edu，一个可以在你自己的电脑上训练的小语言模型。",
        ),
        (
            ("谁创造了你？", "你从哪里来？", "是谁训练了你？", "你是怎么做出来的？"),
            "我是由 MiniMind-edu 课程的一位读者训练的，从第一个字节到最后一个字节。",
        ),
        (
            ("你有多大？", "你有多少参数？", "你的规模是多少？", "你是大模型吗？"),
            "我很小：大约一百万个参数，所以我只认识自己的小世界。",
        ),
    ),
    clinic_questions=(
        "我{complaint}，怎么办？",
        "{complaint}了怎么办才好？",
        "医生，我早上起来{complaint}。",
        "孩子{complaint}，您有什么建议？",
        "{complaint}能治吗？",
    ),
    clinic_answer="镇上的诊所说：{complaint}的时候，{remedy}。",
    clinic=(
        ("感冒", "要注意保暖，喝热姜茶"),
        ("头痛", "在暗一点的房间休息，多喝水"),
        ("咳嗽", "喝加了蜂蜜的热牛奶"),
        ("嗓子疼", "用盐水漱口"),
        ("肚子疼", "吃白粥，躺下休息"),
        ("发烧", "在额头上放一块湿毛巾"),
        ("烫伤", "马上用凉水冲"),
        ("割伤", "洗干净，再包上干净的纱布"),
        ("脚扭伤", "把脚抬高，冷敷"),
        ("牙疼", "咬一粒丁香，去看牙医"),
        ("眼睛累", "闭上眼睛，再看看远处"),
        ("晒伤", "待在阴凉处，涂芦荟"),
        ("被虫咬", "冷敷，不要抓"),
        ("鼻塞", "吸一吸热的水汽"),
        ("背疼", "走一走，让背部保持温暖"),
        ("流鼻血", "坐直，捏住鼻子"),
    ),
    polite=("当然可以！{answer}", "很高兴帮忙。{answer}", "问得好！{answer}"),
    problems=ProblemWords(
        sum_question="算一算{a}＋{b}。",
        difference_question="算一算{a}－{b}。",
        difference={
            "first": "从右边开始，一位一位地减。",
            "step": "{x}－{y}－借位{k}＝{s}：写{d}，借{n}。",
            "last": "最后的借位是{k}。",
        },
        things=("苹果", "鸡蛋", "橙子", "梨子", "包子", "灯笼", "铃铛", "皮球"),
        start="{name}有{a}个{things}。",
        question="{name}现在有几个{things}？",
        steps={
            "+": "{friend}又给了{name}{b}个。",
            "-": "{name}送出去{b}个。",
            "*": "一个魔法篮子把它们变成了{b}倍。",
        },
        step="{a} {op} {b} = {c}。",
        countdown="用{numbers}算出{target}。每个数最多用一次，可以用 + - * 和括号。",
        attempt="{chain}。{verdict}。",
        verdicts=("不对", "对了"),
        comma="，",
    ),
)
